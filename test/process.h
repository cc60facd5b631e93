/* process.h - for tests that kill: what a process belongs to. */
#ifndef TANDEM_TEST_PROCESS_H
#define TANDEM_TEST_PROCESS_H

#include <stdio.h>
#include <sys/types.h>

/* Its parent; 0 when there is no such process. */
static inline pid_t parent_of(pid_t of)
{
    int pid, parent = 0;
    char path[64], name[64], state;
    snprintf(path, sizeof(path), "/proc/%d/stat", of);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%d (%63[^)]) %c %d", &pid, name, &state, &parent) != 4)
        parent = 0;
    if (f)
        fclose(f);
    return parent;
}

#endif
