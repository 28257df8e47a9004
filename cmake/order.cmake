# Lays the functions that a request runs through side by side, in the order in which it does (cmake/order.txt). Where
# one comes a millisecond, it finds neither code nor page tables in the caches: fewer pages are microseconds less.
# A name that is no more does no harm, one that is missing lies where it would have lain: the list is made anew now
# and then (tests/bench/footprint --order cmake/order.txt).
include(CheckCSourceCompiles)

add_compile_options(-ffunction-sections -fno-plt)

function(order_functions target)
    file(STRINGS ${CMAKE_SOURCE_DIR}/cmake/order.txt names REGEX "^[A-Za-z_]")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/order.txt)
    set(lines "")
    foreach(name ${names}) # gcc calls what it made of a function for some callers only NAME.isra.0 and the like
        set(text ".text.${name}")
        string(APPEND lines "    *(${text} ${text}.constprop.* ${text}.part.* ${text}.isra.*)\n")
    endforeach()
    set(script ${CMAKE_BINARY_DIR}/order.ld)
    file(CONFIGURE OUTPUT ${script} @ONLY CONTENT
        "SECTIONS\n{\n  .text.requests : ALIGN(4096)\n  {\n@lines@  }\n}\nINSERT BEFORE .text;\n")
    set(CMAKE_REQUIRED_FLAGS -Werror)
    set(CMAKE_REQUIRED_LINK_OPTIONS -Wl,-T,${script})
    check_c_source_compiles("int main(void) { return 0; }" LINKER_TAKES_AN_ORDER)
    if(LINKER_TAKES_AN_ORDER) # GNU ld and lld; gold does not
        target_link_options(${target} PRIVATE -Wl,-T,${script})
        set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${script})
    endif()
endfunction()
