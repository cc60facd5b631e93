/* machine.c - asks hwloc and NVML what this host is made of. See machine.h. */
#include "topo/machine.h"

#include <hwloc.h>

/* All but what says nothing: caches, and of PCI devices those that people care for. */
static int load(hwloc_topology_t *to)
{
    if (hwloc_topology_init(to))
        return -1;
    hwloc_topology_set_components(*to, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "gl");
    hwloc_topology_set_components(*to, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "opencl");
    hwloc_topology_set_all_types_filter(*to, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_io_types_filter(*to, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (!hwloc_topology_load(*to))
        return 0;
    hwloc_topology_destroy(*to);
    return -1;
}

static int count(hwloc_topology_t t, hwloc_obj_type_t type)
{
    int n = hwloc_get_nbobjs_by_type(t, type);
    return n > 0 ? n : 0;
}

/* Cores inside a set; threads where the kernel does not know cores. */
static int cores_in(hwloc_topology_t t, hwloc_const_cpuset_t set)
{
    hwloc_obj_type_t type = count(t, HWLOC_OBJ_CORE) ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    int n = hwloc_get_nbobjs_inside_cpuset_by_type(t, set, type);
    return n > 0 ? n : 0;
}

static struct machine_place place_of(hwloc_topology_t t, hwloc_const_cpuset_t set)
{
    struct machine_place at = {-1, -1};
    for (int i = 0; i < count(t, HWLOC_OBJ_PACKAGE); i++)
        if (hwloc_bitmap_isincluded(
                set, hwloc_get_obj_by_type(t, HWLOC_OBJ_PACKAGE, (unsigned)i)->cpuset))
            at.package = i;
    for (int i = 0; i < count(t, HWLOC_OBJ_NUMANODE) && at.node < 0; i++)
        if (hwloc_bitmap_isincluded(
                set, hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, (unsigned)i)->cpuset))
            at.node = i;
    return at;
}

static void set_text(hwloc_const_cpuset_t set, char *to, size_t n)
{
    if (hwloc_bitmap_list_snprintf(to, n, set) >= (int)n)
        memcpy(to + n - 4, "...", 4);
}

/* ------------------------------------------------------------------------------- cores */

static void read_nodes(struct machine *m, hwloc_topology_t t)
{
    m->n_node = min_int(count(t, HWLOC_OBJ_NUMANODE), MACHINE_NODES);
    for (int i = 0; i < m->n_node; i++) {
        hwloc_obj_t o = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, (unsigned)i);
        struct machine_node *n = &m->node[i];
        *n = (struct machine_node){.at = place_of(t, o->cpuset),
                                   .os = (int)o->os_index,
                                   .n_core = cores_in(t, o->cpuset),
                                   .memory_bytes = (double)o->attr->numanode.local_memory};
        n->at.node = i;
        set_text(o->cpuset, n->cores, sizeof(n->cores));
        m->memory_bytes += n->memory_bytes;
    }
}

static void read_caches(struct machine *m, hwloc_topology_t t)
{
    static const hwloc_obj_type_t type[] = {HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE,
                                            HWLOC_OBJ_L1CACHE};
    for (size_t i = 0; i < COUNT(type); i++) {
        hwloc_obj_t o = hwloc_get_obj_by_type(t, type[i], 0);
        if (o && m->n_cache < MACHINE_CACHES)
            m->cache[m->n_cache++] =
                (struct machine_cache){.level = (int)o->attr->cache.depth,
                                       .count = count(t, type[i]),
                                       .cores_each = max_int(1, cores_in(t, o->cpuset)),
                                       .bytes = (double)o->attr->cache.size};
    }
}

/* Cores that share a third-level cache; of a node where there is none. */
static void read_groups(struct machine *m, hwloc_topology_t t)
{
    hwloc_obj_type_t type = count(t, HWLOC_OBJ_L3CACHE) ? HWLOC_OBJ_L3CACHE : HWLOC_OBJ_NUMANODE;
    if (count(t, type) > MACHINE_GROUPS)
        type = HWLOC_OBJ_NUMANODE;
    for (int i = 0; i < count(t, type) && m->n_group < MACHINE_GROUPS; i++) {
        hwloc_obj_t o = hwloc_get_obj_by_type(t, type, (unsigned)i);
        int cores = cores_in(t, o->cpuset);
        if (!cores)
            continue; /* memory without cores */
        struct machine_group *g = &m->group[m->n_group++];
        *g = (struct machine_group){.at = place_of(t, o->cpuset), .n_core = cores};
        set_text(o->cpuset, g->cores, sizeof(g->cores));
    }
}

/* ------------------------------------------------------------------------------- cards */

static bool card_kind(unsigned short class_id, enum machine_card_kind *to)
{
    enum { NETWORK = 0x02, DISPLAY = 0x03, ACCELERATOR = 0x12 };
    unsigned base = class_id >> 8;
    *to = base == NETWORK ? CARD_NETWORK : CARD_GPU;
    return base == NETWORK || base == DISPLAY || base == ACCELERATOR;
}

/* "eth0, mlx5_0" behind what the device is called. */
static void card_name(hwloc_obj_t o, struct machine_card *c)
{
    const char *vendor = hwloc_obj_get_info_by_name(o, "PCIVendor");
    const char *device = hwloc_obj_get_info_by_name(o, "PCIDevice");
    size_t used = 0, n = sizeof(c->name);
    for (hwloc_obj_t os = o->io_first_child; os; os = os->next_sibling)
        if (os->name && used + 1 < n)
            used += (size_t)snprintf(c->name + used, n - used, "%s%s", used ? ", " : "", os->name);
    if (used + 1 < n && (vendor || device))
        snprintf(c->name + used, n - used, "%s%s%s%s", used ? ": " : "", vendor ? vendor : "",
                 vendor && device ? " " : "", device ? device : "");
    else if (!used)
        snprintf(c->name, n, "PCI device %04x:%04x", o->attr->pcidev.vendor_id,
                 o->attr->pcidev.device_id);
}

static void read_cards(struct machine *m, hwloc_topology_t t)
{
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_pcidev(t, o)) && m->n_card < MACHINE_CARDS;) {
        enum machine_card_kind kind;
        if (!card_kind(o->attr->pcidev.class_id, &kind))
            continue;
        struct machine_card *c = &m->card[m->n_card++];
        hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(t, o);
        *c = (struct machine_card){
            .kind = kind, .link_bytes_s = 1e9 * (double)o->attr->pcidev.linkspeed, .nvml = -1};
        c->at = near && near->cpuset ? place_of(t, near->cpuset) : (struct machine_place){-1, -1};
        snprintf(c->bus, sizeof(c->bus), "%04x:%02x:%02x.%x", o->attr->pcidev.domain,
                 o->attr->pcidev.bus, o->attr->pcidev.dev, o->attr->pcidev.func);
        card_name(o, c);
    }
}

/* One way, of so many lanes: what is left of the transfers after coding (PCI Express 1 to 6). */
static double pcie_bytes_s(int generation, int width)
{
    static const double lane[] = {0, 0.25e9, 0.5e9, 0.985e9, 1.969e9, 3.938e9, 7.563e9};
    return generation < 0 || generation >= (int)COUNT(lane) ? 0 : lane[generation] * width;
}

/* What NVML knows of a GPU, on the card that hwloc saw; containers may show none. */
static void join_gpus(struct machine *m)
{
    for (int i = 0; i < m->nvml.n; i++) {
        const struct nvml_gpu *g = &m->nvml.gpu[i];
        int k = 0;
        while (k < m->n_card && !nvml_same_bus(m->card[k].bus, g->bus))
            k++;
        if (k == MACHINE_CARDS)
            return;
        struct machine_card *c = &m->card[k];
        if (k == m->n_card) {
            m->n_card++;
            *c = (struct machine_card){.at = {-1, -1}};
            snprintf(c->bus, sizeof(c->bus), "%s", g->bus);
        }
        c->kind = CARD_GPU, c->nvml = i;
        c->memory_bytes = g->memory_bytes;
        snprintf(c->name, sizeof(c->name), "%s", g->name);
        if (g->pcie_generation)
            c->link_bytes_s = pcie_bytes_s(g->pcie_generation, g->pcie_width);
    }
}

void machine_read(struct machine *m, const char *nvml_library)
{
    hwloc_topology_t t;
    struct err e;
    memset(m, 0, sizeof(*m));
    if (!load(&t)) {
        hwloc_obj_t package = hwloc_get_obj_by_type(t, HWLOC_OBJ_PACKAGE, 0);
        const char *model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
        snprintf(m->processor, sizeof(m->processor), "%s", model ? model : "");
        m->n_package = count(t, HWLOC_OBJ_PACKAGE);
        m->n_core = cores_in(t, hwloc_topology_get_topology_cpuset(t));
        m->n_thread = count(t, HWLOC_OBJ_PU);
        read_nodes(m, t);
        read_caches(m, t);
        read_groups(m, t);
        read_cards(m, t);
        hwloc_topology_destroy(t);
    }
    if (nvml_read(&m->nvml, nvml_library, &e))
        snprintf(m->nvidia, sizeof(m->nvidia), "%.150s", e.text);
    else
        snprintf(m->nvidia, sizeof(m->nvidia), "NVIDIA driver %s, %d GPU%s", m->nvml.driver,
                 m->nvml.n, m->nvml.n == 1 ? "" : "s");
    join_gpus(m);
}
