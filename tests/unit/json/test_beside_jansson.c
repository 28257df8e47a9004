/* jansson has functions of the same names as this room: a program with both must find jansson's here. */
#include <jansson.h>

#include "check.h"

TEST(jansson_is_itself_in_a_program_that_has_this_room_too)
{
    json_t *object = json_object(), *array = json_array();

    CHECK(json_is_object(object) && json_is_array(array));
    CHECK_EQ(json_array_append_new(array, json_null()), 0);
    CHECK_EQ(json_array_append_new(array, json_string("text")), 0);
    CHECK_EQ(json_object_set_new(object, "array", array), 0);
    CHECK_STR(json_string_value(json_array_get(array, 1)), json_string_length(json_array_get(array, 1)), "text");
    json_decref(object);
}
