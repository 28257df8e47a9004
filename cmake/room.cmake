# room(common/json KNOWS text err USES PkgConfig::jansson)
#
# A room is a folder named for one noun; its header is its only door. It becomes a static library that sees
# its own folder and the doors of the rooms it KNOWS, nothing else: including any other room's header is
# "no such file". Linking follows the arrows further down by itself, but doors do not: what a known room
# knows stays out of sight unless it is named too.
function(room path)
    cmake_parse_arguments(ROOM "" "" "KNOWS;USES" ${ARGN})
    get_filename_component(name ${path} NAME)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${path}/*.c)
    add_library(${name} STATIC ${sources})
    set_target_properties(${name} PROPERTIES LINKER_LANGUAGE C)
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/${path} INTERFACE ${CMAKE_SOURCE_DIR}/${path})
    target_link_libraries(${name} PRIVATE ${ROOM_KNOWS} ${ROOM_USES})
endfunction()

# unit_test(json KNOWS json text): tests/unit/json/*.c become the program test_json.
function(unit_test name)
    cmake_parse_arguments(UNIT "" "" "KNOWS;USES" ${ARGN})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/unit/${name}/*.c)
    if(NOT sources)
        return()
    endif()
    add_executable(test_${name} ${sources} ${CMAKE_SOURCE_DIR}/tests/unit/check.c)
    target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
    target_compile_definitions(test_${name} PRIVATE QG_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    target_link_libraries(test_${name} PRIVATE ${UNIT_KNOWS} ${UNIT_USES})
    add_test(NAME ${name} COMMAND test_${name})
endfunction()

# fuzz_target(json KNOWS json text): tests/fuzz/fuzz_json.c becomes fuzz_json. Without QG_FUZZ it is linked
# with a driver that replays the corpus folder given to it, so that a plain test run replays every corpus.
function(fuzz_target name)
    cmake_parse_arguments(FUZZ "" "" "KNOWS;USES" ${ARGN})
    if(NOT EXISTS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_${name}.c)
        return()
    endif()
    add_executable(fuzz_${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_${name}.c)
    target_link_libraries(fuzz_${name} PRIVATE ${FUZZ_KNOWS} ${FUZZ_USES})
    if(QG_FUZZ)
        target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    else()
        target_sources(fuzz_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.c)
    endif()
endfunction()
