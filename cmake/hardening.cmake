# What makes a mistake of ours hard to use, in what is installed. tests/e2e/test_hardening.py reads the binary for it.
#
# Left out: -fno-strict-overflow and -fno-delete-null-pointer-checks keep a compiler from dropping checks that are
# written wrongly; the sanitizers, which every test runs under, report those instead.
include(CheckCCompilerFlag)

# Adds the first of these flags that the compiler takes without a word.
function(harden what)
    foreach(flag ${ARGN})
        string(MAKE_C_IDENTIFIER "takes${flag}" takes)
        set(CMAKE_REQUIRED_FLAGS -Werror)
        check_c_compiler_flag(${flag} ${takes})
        if(${takes})
            add_compile_options(${flag})
            return()
        endif()
    endforeach()
    message(STATUS "this compiler has no ${what}")
endfunction()

add_compile_options(-g1 -fPIE)
harden("stack protector" -fstack-protector-strong)
harden("protection against stack clashes" -fstack-clash-protection)
harden("protection of control flow" -fcf-protection=full -mbranch-protection=standard)
harden("zeroed variables" -ftrivial-auto-var-init=zero) # gcc 12, clang 16; clang 14 knows it only as an experiment

# 3 sees the size of what malloc gave, and takes gcc 12 or clang 12 with glibc 2.34; older ones read it as 2 or
# complain. Distributions preset it, and redefining is a warning.
include(CheckCSourceCompiles)
set(CMAKE_REQUIRED_FLAGS "-O2 -Werror -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3")
check_c_source_compiles("
    #include <stdlib.h>
    #if !defined(__USE_FORTIFY_LEVEL) || __USE_FORTIFY_LEVEL < 3
    #error older
    #endif
    int main(void) { return 0; }" HAS_FORTIFY_3)
unset(CMAKE_REQUIRED_FLAGS)
if(HAS_FORTIFY_3)
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
else()
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()

add_link_options(-pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
