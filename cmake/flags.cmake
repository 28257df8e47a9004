# One set of flags for everything. Warnings are errors. gcc 12 and clang 14 spell C23 "gnu2x"; CMake knows that.
add_compile_options(
    -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition
    -Wpointer-arith -Wwrite-strings -Wvla -Wundef -Wformat=2 -Wformat-security -Wnull-dereference
    -Wimplicit-fallthrough -Wcast-align -Wunused-result -Wredundant-decls
    -fno-strict-aliasing -fno-common -fvisibility=hidden)
add_compile_definitions(_GNU_SOURCE)

if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_C_COMPILER_VERSION VERSION_LESS 12)
    add_compile_options(-Wno-attributes) # it has no zeroed variables, nor `uninitialized` to leave one out
endif()
if(NOT QG_SANITIZE STREQUAL "")
    add_compile_definitions(QG_SANITIZED)
endif()
if(QG_SANITIZE STREQUAL "address")
    add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    add_link_options(-fsanitize=address,undefined)
elseif(QG_SANITIZE STREQUAL "thread")
    add_compile_options(-fsanitize=thread -fno-omit-frame-pointer -g)
    add_link_options(-fsanitize=thread)
elseif(NOT QG_SANITIZE STREQUAL "")
    message(FATAL_ERROR "QG_SANITIZE must be empty, address or thread, not '${QG_SANITIZE}'")
endif()

if(QG_COVERAGE)
    if(NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")
        message(FATAL_ERROR "counting lines needs gcc: use the preset `coverage`")
    endif()
    add_compile_options(--coverage)
    add_link_options(--coverage)
endif()

if(QG_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
        message(FATAL_ERROR "fuzzing needs clang: use the preset `fuzz`")
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# -Wnull-dereference and fortify misjudge inlined code under sanitizers and at -O0.
if(QG_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug")
    add_compile_options(-Wno-null-dereference)
else()
    include(cmake/hardening.cmake)
    include(cmake/order.cmake)
endif()
