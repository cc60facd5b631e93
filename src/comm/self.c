/* self.c - a group of one: the wrappers of comm.h never call it. */
#include "comm/comm.h"

const struct comm_ops comm_self = {.name = "self"};
