/* yaml_tree - libyaml's events become struct conf's tree. Known inside this room only. */
#pragma once
#include "conf.h"

enum err yaml_tree_read(struct conf *conf, struct slice yaml, struct text *why);
