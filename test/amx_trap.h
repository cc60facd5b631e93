/* amx_trap.h - lets machine code with tile instructions run where there are none: every one traps,
 * and is done by the model of amx_model.h instead. x86-64 Linux. */
#ifndef TANDEM_AMX_TRAP_H
#define TANDEM_AMX_TRAP_H

/* From now on, in all threads. Other illegal instructions end the program as before. */
void amx_trap_begin(void);

#endif
