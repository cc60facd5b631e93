/* spans.cc - names of what a thread does, as profilers would see them (runtime.h), for tests:
 * model_spans() tells and forgets them. */
#include <cstdlib>
#include <string>

extern "C" {
void gpu_span_begin(const char *name); /* as dev/cuda/runtime.h has them */
void gpu_span_end(void);

/* The names of this thread's spans since the last call, those within others after a blank. */
const char *model_spans(void);
}

static thread_local std::string spans;
static thread_local int open_spans;

void gpu_span_begin(const char *name)
{
    spans += std::string(open_spans++ ? " " : spans.empty() ? "" : ", ") + name;
}

void gpu_span_end(void)
{
    if (--open_spans < 0)
        abort();
}

const char *model_spans(void)
{
    static thread_local std::string told;
    told.swap(spans);
    spans.clear();
    return told.c_str();
}
