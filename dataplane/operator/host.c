#include "host.h"

#include "cidr.h"

bool host_is_no_name(struct slice field, struct slice *ret_name)
{
    struct slice name = slice_trim(field);
    struct address address;
    const char *colon;

    if (name.len && name.at[0] == '[')
        return address_parse_loose(name, &address);
    colon = name.len ? memchr(name.at, ':', name.len) : NULL;
    if (colon)
        name.len = (size_t)(colon - name.at);
    if (!name.len || address_parse(name, &address))
        return true;
    if (name.at[name.len - 1] == '.')
        name.len--;
    *ret_name = name;
    return false;
}
