/* stream.h - how libraries that tests bring along in place of NVIDIA's (fake_nccl.c,
 * fake_cublaslt.c) reach the model's streams, without linking to it: a stream begins with this. */
#ifndef CUDA_MODEL_STREAM_H
#define CUDA_MODEL_STREAM_H

/* What a task returns that is not done yet: it is asked again. Others see cudaErrorNotReady. */
enum { MODEL_AGAIN = 600 };

struct model_stream {
    /* In order with what was enqueued before; recorded like it. When it can run no more, `release`
     * is called with its arg. */
    int (*enqueue)(void *stream, int (*task)(void *arg), void *arg, void (*release)(void *arg));
};

#endif
