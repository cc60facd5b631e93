/* fiber.h - threads of a block as fibers: stacks that are switched by hand. */
#ifndef CUDA_MODEL_FIBER_H
#define CUDA_MODEL_FIBER_H

/* Where a fiber that does not run goes on: its stack pointer. */
struct fiber {
    void *at;
};

void *fiber_stack(void); /* of a new fiber, its top; guarded at the end */
void fiber_stack_free(void *top);
bool fiber_on_stack(const void *top, const void *at);
void fiber_stack_clean(void *top); /* after a fiber was left for good in the middle of something */

/* A fiber that will begin with start(), which must not return. */
struct fiber fiber_begin(void *top, void (*start)(void));
void fiber_switch(struct fiber *from, struct fiber to);

#endif
