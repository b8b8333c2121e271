/* A plugin for QEMU (interface 1: QEMU 4.2 to 8): counts the instructions of a guest, all of them and those in marked ranges.
 * Arguments: count=FILE, two numbers of 64 bits that are kept up to date; marks=FILE, lines of two hexadecimal addresses,
 * ascending. Declares what it uses of QEMU's header, which few machines have. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MOST_MARKS 65536
enum { ADD = 0 };

struct block;
struct instruction;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t id, struct block *block));
size_t qemu_plugin_tb_n_insns(const struct block *block);
struct instruction *qemu_plugin_tb_get_insn(const struct block *block, size_t at);
uint64_t qemu_plugin_insn_vaddr(const struct instruction *instruction);
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *block, int operation, void *number, uint64_t more);

EXPORT int qemu_plugin_version = 1;

static uint64_t *counts;
static uint64_t marks[MOST_MARKS][2];
static size_t mark_count;

static int is_marked(uint64_t address) {
    size_t low = 0, high = mark_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (marks[middle][1] <= address) low = middle + 1;
        else high = middle;
    }
    return low < mark_count && marks[low][0] <= address;
}

static void translated(uint64_t id, struct block *block) {
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(block), marked = 0;
    for (size_t at = 0; at < count; at++) {
        marked += is_marked(qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(block, at)));
    }
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &counts[0], count);
    if (marked > 0) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &counts[1], marked);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    (void)info;
    if (argc != 2 || strncmp(argv[0], "count=", 6) || strncmp(argv[1], "marks=", 6)) return -1;
    FILE *file = fopen(argv[1] + 6, "r");
    if (!file) return -1;
    while (mark_count < MOST_MARKS && fscanf(file, "%lx %lx", &marks[mark_count][0], &marks[mark_count][1]) == 2) mark_count++;
    fclose(file);
    int shown = open(argv[0] + 6, O_RDWR);
    if (shown < 0) return -1;
    counts = mmap(NULL, 2 * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, shown, 0);
    close(shown);
    if (counts == MAP_FAILED) return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
