/* hardware_fields.h - the figures of a hardware profile by name: written, read and checked by the
 * same rows. For hardware_json.c and hardware_check.c. */
#ifndef TANDEM_TOPO_HARDWARE_FIELDS_H
#define TANDEM_TOPO_HARDWARE_FIELDS_H

/* FIGURE(field, needed) */
#define HARDWARE_FIGURES(FIGURE)                                                                   \
    FIGURE(memory_bytes, true)                                                                     \
    FIGURE(reserve_bytes, false)                                                                   \
    FIGURE(memory_rate, true)                                                                      \
    FIGURE(price_hour, false)                                                                      \
    FIGURE(watts, false)                                                                           \
    FIGURE(step_s, false)                                                                          \
    FIGURE(seq_s, false)
#define RATES_FIGURES(FIGURE)                                                                      \
    FIGURE(byte_s, true)                                                                           \
    FIGURE(op_s, true)                                                                             \
    FIGURE(attend_row_s, false)                                                                    \
    FIGURE(draw_op_s, false)                                                                       \
    FIGURE(draw_s, false)                                                                          \
    FIGURE(rank_op_s, false)                                                                       \
    FIGURE(rank_s, false)                                                                          \
    FIGURE(split_s, false)
#define COLLECTIVE_FIGURES(FIGURE)                                                                 \
    FIGURE(latency_s, true)                                                                        \
    FIGURE(byte_s, true)                                                                           \
    FIGURE(far_byte_s, true)

#endif
