/* machine_text.c - a machine as a tree, a matrix and JSON. See machine.h. */
#include "topo/machine.h"

/* "32 MiB", "1.5 TiB". */
static const char *bytes_text(char to[16], double bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    while (bytes >= 1024 && i + 1 < COUNT(unit))
        bytes /= 1024, i++;
    snprintf(to, 16, bytes < 100 && bytes != (int)bytes ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
    return to;
}

static const char *plural(int n) { return n == 1 ? "" : "s"; }

/* ------------------------------------------------------------------------------- the tree */

static void print_caches(const struct machine *m, const char *indent, FILE *to)
{
    char size[16];
    for (int i = 0; i < m->n_cache; i++)
        fprintf(to, "%s%s%s L%d%s", i ? "" : indent, i ? ", " : "",
                bytes_text(size, m->cache[i].bytes), m->cache[i].level,
                m->cache[i].cores_each == 1 ? " a core" : "");
    for (int i = 0; i < m->n_cache; i++)
        if (m->cache[i].cores_each > 1)
            fprintf(to, "; an L%d for %d cores", m->cache[i].level, m->cache[i].cores_each);
    if (m->n_cache)
        putc('\n', to);
}

static const char *mode_text(enum gpu_mode m)
{
    static const char *const text[GPU_MODES] = {[GPU_SHARED] = "shared",
                                                [GPU_ONE_THREAD] = "one thread",
                                                [GPU_PROHIBITED] = "prohibited",
                                                [GPU_ONE_PROCESS] = "one process"};
    return text[m];
}

/* What the driver adds; what is usual is not worth a word. */
static void print_driver(const struct nvml_gpu *g, FILE *to)
{
    if (g->switch_links)
        fprintf(to, ", %d NVLinks to switches", g->switch_links);
    if (g->mig)
        fprintf(to, ", cut into instances (MIG)");
    if (g->sleeps)
        fprintf(to, ", persistence mode off (starting takes longer)");
    if (g->mode != GPU_SHARED)
        fprintf(to, ", compute mode: %s", mode_text(g->mode));
}

static void print_card(const struct machine *m, int i, const char *indent, FILE *to)
{
    const struct machine_card *c = &m->card[i];
    char size[16];
    fprintf(to, "%s%s: %s at %s", indent, c->kind == CARD_GPU ? "GPU" : "network", c->name, c->bus);
    if (c->memory_bytes > 0)
        fprintf(to, ", %s", bytes_text(size, c->memory_bytes));
    if (c->link_bytes_s > 0)
        fprintf(to, ", PCIe %.1f GB/s", 1e-9 * c->link_bytes_s);
    if (c->nvml >= 0)
        print_driver(&m->nvml.gpu[c->nvml], to);
    putc('\n', to);
}

static void print_cards(const struct machine *m, int package, int node, const char *indent,
                        FILE *to)
{
    for (int i = 0; i < m->n_card; i++)
        if (m->card[i].at.package == package && m->card[i].at.node == node)
            print_card(m, i, indent, to);
}

/* A node of this socket: its cores, and the groups of them where there are several. */
static void print_node(const struct machine *m, const struct machine_node *n, FILE *to)
{
    char size[16];
    int groups = 0;
    for (int i = 0; i < m->n_group; i++)
        groups += m->group[i].at.node == n->at.node;
    fprintf(to, "  node %d: %s of memory, %d core%s%s%s\n", n->os,
            bytes_text(size, n->memory_bytes), n->n_core, plural(n->n_core),
            n->n_core ? ", threads " : "", n->n_core ? n->cores : "");
    for (int i = 0; groups > 1 && i < m->n_group; i++)
        if (m->group[i].at.node == n->at.node)
            fprintf(to, "    an L3 of %d core%s, threads %s\n", m->group[i].n_core,
                    plural(m->group[i].n_core), m->group[i].cores);
    print_cards(m, n->at.package, n->at.node, "    ", to);
}

void machine_print_tree(const struct machine *m, FILE *to)
{
    char size[16];
    fprintf(to, "%s%s%d socket%s, %d NUMA node%s, %d core%s, %d thread%s, %s of memory\n",
            m->processor, *m->processor ? ": " : "", m->n_package, plural(m->n_package), m->n_node,
            plural(m->n_node), m->n_core, plural(m->n_core), m->n_thread, plural(m->n_thread),
            bytes_text(size, m->memory_bytes));
    print_caches(m, "", to);
    for (int p = -1; p < m->n_package; p++) { /* -1: what spans sockets */
        if (p >= 0)
            fprintf(to, "socket %d\n", p);
        for (int i = 0; i < m->n_node; i++)
            if (m->node[i].at.package == p)
                print_node(m, &m->node[i], to);
        print_cards(m, p, -1, "  ", to);
    }
    fprintf(to, "%s\n", m->nvidia);
}

/* ------------------------------------------------------------------------------- the matrix */

static struct machine_place place(const struct machine *m, int i)
{
    return i < m->n_group ? m->group[i].at : m->card[i - m->n_group].at;
}

/* NVLinks between two GPUs; false: none. */
static bool nvlinks(const struct machine *m, int a, int b, char to[16])
{
    int x = a < m->n_group ? -1 : m->card[a - m->n_group].nvml;
    int y = b < m->n_group ? -1 : m->card[b - m->n_group].nvml;
    if (x < 0 || y < 0)
        return false;
    const struct nvml_gpu *g = m->nvml.gpu;
    if (g[x].links[y])
        snprintf(to, 16, "NVLink x%d", g[x].links[y]);
    else if (g[x].switch_links && g[y].switch_links)
        snprintf(to, 16, "NVSwitch x%d", min_int(g[x].switch_links, g[y].switch_links));
    else
        return false;
    return true;
}

void machine_between(const struct machine *m, int a, int b, char to[16])
{
    const struct machine_place x = place(m, a), y = place(m, b);
    const bool card = a >= m->n_group || b >= m->n_group;
    if (a == b)
        snprintf(to, 16, "-");
    else if (nvlinks(m, a, b, to))
        return;
    else if (x.package >= 0 && y.package >= 0 && x.package != y.package)
        snprintf(to, 16, "sockets");
    else if (card && (m->n_package <= 1 || (x.package >= 0 && x.package == y.package)))
        snprintf(to, 16, "PCIe");
    else if (x.node >= 0 && x.node == y.node)
        snprintf(to, 16, "node");
    else if (x.package >= 0 && x.package == y.package)
        snprintf(to, 16, "socket");
    else
        snprintf(to, 16, "?");
}

static void unit_name(const struct machine *m, int i, char to[24])
{
    int gpus = 0, nets = 0;
    if (i < m->n_group) {
        snprintf(to, 24, "cores %d", i);
        return;
    }
    for (int k = 0; k < i - m->n_group; k++)
        m->card[k].kind == CARD_GPU ? gpus++ : nets++;
    bool gpu = m->card[i - m->n_group].kind == CARD_GPU;
    snprintf(to, 24, "%s %d", gpu ? "GPU" : "network", gpu ? gpus : nets);
}

void machine_print_matrix(const struct machine *m, FILE *to)
{
    const int n = m->n_group + m->n_card;
    char text[24];
    if (n < 2)
        return;
    fprintf(to, "%-10s", "");
    for (int i = 0; i < n; i++) {
        unit_name(m, i, text);
        fprintf(to, " %-12s", text);
    }
    for (int a = 0; a < n; a++) {
        unit_name(m, a, text);
        fprintf(to, "\n%-10s", text);
        for (int b = 0; b < n; b++) {
            machine_between(m, a, b, text);
            fprintf(to, " %-12s", text);
        }
    }
    fprintf(to, "\ncores N: those with one last-level cache, in the order above. node, socket, "
                "sockets: both in one, or on two sockets\n");
}

/* ------------------------------------------------------------------------------- JSON */

static json_t *card_json(const struct machine *m, const struct machine_card *c)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f}", "kind",
                          c->kind == CARD_GPU ? "gpu" : "network", "name", c->name, "bus", c->bus,
                          "socket", c->at.package, "node", c->at.node, "pcie_bytes_s",
                          c->link_bytes_s, "memory_bytes", c->memory_bytes);
    if (c->nvml >= 0) {
        json_object_set_new(o, "mig", json_boolean(m->nvml.gpu[c->nvml].mig));
        json_object_set_new(o, "persistence", json_boolean(!m->nvml.gpu[c->nvml].sleeps));
        json_object_set_new(o, "compute_mode", json_string(mode_text(m->nvml.gpu[c->nvml].mode)));
    }
    return o;
}

static json_t *between_json(const struct machine *m)
{
    json_t *rows = json_array();
    for (int a = 0; a < m->n_group + m->n_card; a++) {
        json_t *row = json_array();
        for (int b = 0; b < m->n_group + m->n_card; b++) {
            char text[16];
            machine_between(m, a, b, text);
            json_array_append_new(row, json_string(text));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

json_t *machine_to_json(const struct machine *m)
{
    json_t *nodes = json_array(), *groups = json_array(), *cards = json_array(),
           *caches = json_array();
    for (int i = 0; i < m->n_node; i++)
        json_array_append_new(
            nodes, json_pack("{s:i, s:i, s:i, s:f, s:s}", "node", m->node[i].os, "socket",
                             m->node[i].at.package, "cores", m->node[i].n_core, "memory_bytes",
                             m->node[i].memory_bytes, "threads", m->node[i].cores));
    for (int i = 0; i < m->n_cache; i++)
        json_array_append_new(caches,
                              json_pack("{s:i, s:i, s:i, s:f}", "level", m->cache[i].level, "count",
                                        m->cache[i].count, "cores_each", m->cache[i].cores_each,
                                        "bytes", m->cache[i].bytes));
    for (int i = 0; i < m->n_group; i++)
        json_array_append_new(groups,
                              json_pack("{s:i, s:i, s:i, s:s}", "socket", m->group[i].at.package,
                                        "node", m->group[i].at.node, "cores", m->group[i].n_core,
                                        "threads", m->group[i].cores));
    for (int i = 0; i < m->n_card; i++)
        json_array_append_new(cards, card_json(m, &m->card[i]));
    return json_pack("{s:s, s:i, s:i, s:i, s:f, s:s, s:o, s:o, s:o, s:o, s:o}", "processor",
                     m->processor, "sockets", m->n_package, "cores", m->n_core, "threads",
                     m->n_thread, "memory_bytes", m->memory_bytes, "nvidia", m->nvidia, "nodes",
                     nodes, "caches", caches, "groups", groups, "cards", cards, "between",
                     between_json(m));
}
