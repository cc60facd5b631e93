/* amx_trap.c - see amx_trap.h. Decodes what dev/cpu/amx.h can assemble to: a VEX prefix of three
 * bytes, one opcode, ModRM, perhaps SIB and a displacement. */
#include "amx_trap.h"

#include "amx_model.h"
#include "base/base.h"

#include <signal.h>
#include <ucontext.h>

struct code {
    const uint8_t *at;
    int opcode, prefix;                  /* 0: none, 1: 66, 2: F3, 3: F2 */
    int high_reg, high_index, high_base; /* 8 or 0 */
    int third;                           /* the operand in the prefix */
    int mod, reg, rm;
};

static struct code decode(const uint8_t *at)
{
    return (struct code){.at = at + 5,
                         .opcode = at[3],
                         .prefix = at[2] & 3,
                         .high_reg = at[1] & 128 ? 0 : 8,
                         .high_index = at[1] & 64 ? 0 : 8,
                         .high_base = at[1] & 32 ? 0 : 8,
                         .third = ~at[2] >> 3 & 15,
                         .mod = at[4] >> 6,
                         .reg = at[4] >> 3 & 7,
                         .rm = at[4] & 7};
}

static uintptr_t value(const ucontext_t *u, int number)
{
    static const int where[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};
    return (uintptr_t)u->uc_mcontext.gregs[where[number]];
}

/* The address that ModRM names; *index is what the SIB byte adds to it. Passes over their bytes. */
static char *operand(struct code *c, const ucontext_t *u, size_t *index)
{
    int base = c->rm + c->high_base;
    int32_t far = 0;
    uintptr_t at;
    *index = 0;
    if (c->rm == 4) {
        int sib = *c->at++, number = (sib >> 3 & 7) + c->high_index;
        base = (sib & 7) + c->high_base;
        if (number != 4)
            *index = value(u, number) << (sib >> 6);
        must((sib & 7) != 5 || c->mod); /* no base: never assembled */
    }
    must(c->rm != 5 || c->mod); /* beside the code: never either */
    at = value(u, base);
    if (c->mod == 1)
        far = (int8_t)*c->at++;
    if (c->mod == 2)
        memcpy(&far, c->at, sizeof(far)), c->at += sizeof(far);
    return (char *)(at + (uintptr_t)(intptr_t)far);
}

/* Does it; returns whether it was a tile instruction. */
static bool perform(struct code *c, const ucontext_t *u)
{
    size_t index;
    char *at;
    if (c->opcode == 0x5e && c->prefix == 2 && c->mod == 3) {
        amx_dot(c->reg, c->rm, c->third);
    } else if (c->opcode == 0x49 && c->prefix == 3 && c->mod == 3 && c->rm == 0) {
        amx_zero(c->reg);
    } else if (c->opcode == 0x49 && c->prefix == 0 && c->mod == 3) {
        amx_release();
    } else if (c->opcode == 0x49 && c->prefix == 0 && c->reg == 0) {
        at = operand(c, u, &index);
        amx_configure(at + index);
    } else if (c->opcode == 0x4b && (c->prefix == 2 || c->prefix == 3) && c->rm == 4) {
        at = operand(c, u, &index);
        c->prefix == 3 ? amx_load(c->reg, at, index) : amx_store(c->reg, at, index);
    } else {
        return false;
    }
    return !c->high_reg;
}

static void trap(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    const uint8_t *at = (const uint8_t *)(uintptr_t)u->uc_mcontext.gregs[REG_RIP];
    struct code c;
    (void)info;
    if (at[0] == 0xc4 && (at[1] & 31) == 2 && !(at[2] & 128) && !(at[2] & 4)) {
        c = decode(at);
        if (perform(&c, u)) {
            u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)c.at;
            return;
        }
    }
    signal(signal_number, SIG_DFL); /* and once more */
}

void amx_trap_begin(void)
{
    struct sigaction act = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO};
    must(!sigaction(SIGILL, &act, NULL));
}
