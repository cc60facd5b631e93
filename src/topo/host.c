/* host.c - see host.h. Beside machine.c the only file that knows hwloc. */
#include "topo/host.h"

#include <hwloc.h>
#include <limits.h>

/* Load nodes, cores and hardware threads, and what stands between: a node hangs on a package or a
 * group. hwloc's plugins are for devices: opening them would take longer than all the rest. */
static int load(hwloc_topology_t *to)
{
    static const hwloc_obj_type_t kept[] = {HWLOC_OBJ_PACKAGE, HWLOC_OBJ_GROUP, HWLOC_OBJ_CORE};
    const char *plugins = "HWLOC_PLUGINS_PATH";
    const bool chosen = getenv(plugins);
    if (!chosen)
        setenv(plugins, "/nonexistent", 1);
    int rc = hwloc_topology_init(to);
    if (!chosen)
        unsetenv(plugins);
    if (rc)
        return rc;
    /* Asking every core by cpuid would move this thread about; Linux knows the answers. */
    hwloc_topology_set_components(*to, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
    hwloc_topology_set_flags(*to, HWLOC_TOPOLOGY_FLAG_NO_DISTANCES |
                                      HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS |
                                      HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS);
    hwloc_topology_set_all_types_filter(*to, HWLOC_TYPE_FILTER_KEEP_NONE);
    for (size_t i = 0; i < COUNT(kept); i++)
        hwloc_topology_set_type_filter(*to, kept[i], HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
    rc = hwloc_topology_load(*to);
    if (rc)
        hwloc_topology_destroy(*to);
    return rc;
}

/* The hardware threads that may be used: of a machine that is not this one, all. */
static hwloc_bitmap_t allowed(hwloc_topology_t t, const cpu_set_t *only)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    must(set);
    for (int i = 0; only && i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, only))
            hwloc_bitmap_set(set, (unsigned)i);
    if (!only && hwloc_get_cpubind(t, set, HWLOC_CPUBIND_THREAD))
        hwloc_bitmap_fill(set);
    hwloc_bitmap_and(set, set, hwloc_topology_get_allowed_cpuset(t));
    return set;
}

/* Some kernels do not say which threads share a core: then each is one. */
static hwloc_obj_type_t core_type(hwloc_topology_t t)
{
    return hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
}

/* Add what the node has and no earlier one had: two kinds of memory beside the same cores are two
 * nodes, the usual kind first. */
static void add_node(struct host *h, hwloc_topology_t t, hwloc_obj_t node, hwloc_bitmap_t left)
{
    const int before = h->n_core;
    hwloc_obj_t core = NULL;
    while ((core = hwloc_get_next_obj_inside_cpuset_by_type(t, node->cpuset, core_type(t), core))) {
        hwloc_bitmap_t own = hwloc_bitmap_dup(core->cpuset);
        must(own);
        hwloc_bitmap_and(own, own, left);
        if (!hwloc_bitmap_iszero(own) && h->n_core < HOST_CORES)
            h->core[h->n_core++] =
                (struct host_core){.cpu = hwloc_bitmap_first(own), .at = h->n_node};
        hwloc_bitmap_andnot(left, left, core->cpuset);
        hwloc_bitmap_free(own);
    }
    if (h->n_core > before)
        h->node[h->n_node++] = (int)node->os_index;
}

static void read_affinity(struct host *h, const cpu_set_t *only)
{
    cpu_set_t own;
    CPU_ZERO(&own);
    if (!only)
        sched_getaffinity(0, sizeof(own), &own);
    only = only ? only : &own;
    *h = (struct host){.n_node = 1};
    for (int i = 0; i < CPU_SETSIZE && h->n_core < HOST_CORES; i++)
        if (CPU_ISSET(i, only))
            h->core[h->n_core++] = (struct host_core){.cpu = i};
    h->n_core = max_int(h->n_core, 1);
}

void host_read(struct host *h, const cpu_set_t *only)
{
    hwloc_topology_t t;
    memset(h, 0, sizeof(*h));
    if (!load(&t)) {
        hwloc_bitmap_t left = allowed(t, only);
        int n = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
        for (int i = 0; i < n && h->n_node < HOST_NODES; i++)
            add_node(h, t, hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, (unsigned)i), left);
        hwloc_bitmap_free(left);
        hwloc_topology_destroy(t);
    }
    if (!h->n_core)
        read_affinity(h, only);
}

int host_card_node(const char *bus, const char *root)
{
    unsigned domain, number, device, function;
    char path[256];
    int node = -1;
    if (sscanf(bus, "%x:%x:%x.%x", &domain, &number, &device, &function) != 4)
        return -1;
    snprintf(path, sizeof(path), "%.128s/bus/pci/devices/%04x:%02x:%02x.%x/numa_node",
             root ? root : "/sys", domain, number, device, function);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%d", &node) != 1)
        node = -1;
    if (f)
        fclose(f);
    return node;
}

int host_quota(void)
{
    long long quota, period;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    bool limited = f && fscanf(f, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0;
    if (f)
        fclose(f);
    return limited && quota / period < INT_MAX ? max_int(1, (int)(quota / period)) : INT_MAX;
}

struct host host_part(const struct host *h, int n)
{
    struct host part = *h;
    part.n_core = min_int(h->n_core, max_int(n, 1));
    part.n_node = part.core[part.n_core - 1].at + 1;
    return part;
}

int host_find(const struct host *h, int cpu)
{
    for (int i = 0; h && i < h->n_core; i++)
        if (h->core[i].cpu == cpu)
            return i;
    return -1;
}

void host_run(const struct host *h, int cpu, int n, int *to)
{
    int first = cpu < 0 ? -1 : host_find(h, cpu);
    bool known = first >= 0 && first + n <= h->n_core;
    for (int i = 0; i < n; i++)
        to[i] = cpu < 0 ? -1 : known ? h->core[first + i].cpu : cpu + i;
}
