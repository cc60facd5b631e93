/* fiber.cc - see fiber.h. Switching saves what a called function must save, and no more; on other
 * processors than x86-64 the C library does it, more slowly.
 */
#include "fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at))
#endif

enum { STACK_BYTES = 256 << 10, GUARD_BYTES = 4096 };

void fiber_stack_clean(void *top)
{
    ASAN_UNPOISON_MEMORY_REGION((char *)top - STACK_BYTES, STACK_BYTES);
}

void *fiber_stack(void)
{
    char *at = (char *)mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED || mprotect(at, GUARD_BYTES, PROT_NONE)) {
        perror("the model of a GPU has no memory for stacks");
        abort();
    }
    fiber_stack_clean(at + GUARD_BYTES + STACK_BYTES); /* of who had these addresses before */
    return at + GUARD_BYTES + STACK_BYTES;
}

bool fiber_on_stack(const void *top, const void *at)
{
    return (const char *)at < (const char *)top &&
           (const char *)at >= (const char *)top - STACK_BYTES;
}

void fiber_stack_free(void *top)
{
    fiber_stack_clean(top); /* whoever gets these addresses next knows nothing of fibers */
    munmap((char *)top - STACK_BYTES - GUARD_BYTES, STACK_BYTES + GUARD_BYTES);
}

#if defined(__x86_64__)

extern "C" void fiber_swap(void **from, void *to);

asm(".text\n"
    ".globl fiber_swap\n"
    ".type fiber_swap, @function\n"
    "fiber_swap:\n"
    "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
    "    mov %rsp, (%rdi)\n"
    "    mov %rsi, %rsp\n"
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
    "    ret\n"
    ".size fiber_swap, . - fiber_swap\n");

struct fiber fiber_begin(void *top, void (*start)(void))
{
    uintptr_t *at = (uintptr_t *)top;
    *--at = 0; /* where start() would return to; it also aligns the stack */
    *--at = (uintptr_t)start;
    for (int i = 0; i < 6; i++)
        *--at = 0;
    return {at};
}

void fiber_switch(struct fiber *from, struct fiber to) { fiber_swap(&from->at, to.at); }

#else

#include <ucontext.h>

struct fiber fiber_begin(void *top, void (*start)(void))
{
    ucontext_t *context = (ucontext_t *)((char *)top - sizeof(*context)) - 1;
    getcontext(context);
    context->uc_stack.ss_sp = (char *)top - STACK_BYTES;
    context->uc_stack.ss_size = STACK_BYTES - 4 * sizeof(*context);
    makecontext(context, start, 0);
    return {context};
}

void fiber_switch(struct fiber *from, struct fiber to)
{
    ucontext_t here;
    from->at = &here;
    swapcontext(&here, (ucontext_t *)to.at);
}

#endif
