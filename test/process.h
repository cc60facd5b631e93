/* process.h - for tests that kill: which processes live, and whose they are. */
#ifndef TANDEM_TEST_PROCESS_H
#define TANDEM_TEST_PROCESS_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/* Of a process that lives: its name and its parent. */
static inline bool process_of(pid_t pid, char name[64], pid_t *parent)
{
    int number;
    char path[64], state;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *f = pid > 0 ? fopen(path, "r") : NULL;
    bool found = f && fscanf(f, "%d (%63[^)]) %c %d", &number, name, &state, parent) == 4;
    if (f)
        fclose(f);
    return found && state != 'Z';
}

static inline bool lives(pid_t pid)
{
    char name[64];
    pid_t parent;
    return process_of(pid, name, &parent);
}

/* 0 when there is no such process. */
static inline pid_t parent_of(pid_t pid)
{
    char name[64];
    pid_t parent;
    return process_of(pid, name, &parent) ? parent : 0;
}

#endif
