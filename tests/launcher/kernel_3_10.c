/* usage: kernel_3_10 PROGRAM [ARGUMENTS...]
 *
 * Runs PROGRAM with the system calls of Linux 3.10: every call with a number above the last one of that kernel is
 * answered with ENOSYS, as that kernel would, for PROGRAM and all its children. What a filter of numbers cannot show
 * is a flag or an option that came later to a call that is old.
 */
#include <elf.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* finit_module is the last entry of 3.10's table on x86, MIPS and ARM. arm64 takes the generic table of that time,
 * which ends with it, too. (kcmp and finit_module came together in 3.8; nothing was added until sched_setattr in 3.14.)
 */
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#define LAST 313
#elif defined(__mips__) && defined(__MIPSEL__) && _MIPS_SIM == _MIPS_SIM_ABI32
#define ARCH AUDIT_ARCH_MIPSEL
#define LAST 4348
#elif defined(__arm__) && defined(__ARMEL__)
#define ARCH AUDIT_ARCH_ARM
#define LAST 379
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#define ARCH AUDIT_ARCH_AARCH64
#define LAST 273
#else
#error "the last system call of 3.10 is not known for this architecture"
#endif

/* Calls of the ARM ABI, from 0x0f0001 (breakpoint) to 0x0f0005 (set_tls): old, and not in the table. */
#define ARM_PRIVATE 0x0f0000
#define ARM_PRIVATE_END 0x0f0010

int main(int count, char **words) {
    const unsigned refuse = SECCOMP_RET_ERRNO | (ENOSYS & SECCOMP_RET_DATA);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        /* Another ABI has other numbers (int 0x80 on x86-64): it has none at all. */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, refuse),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
#if defined(__arm__)
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ARM_PRIVATE_END, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ARM_PRIVATE, 2, 0),
#endif
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, refuse),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof code[0], code};

    if (count < 2) {
        fprintf(stderr, "usage: %s PROGRAM [ARGUMENTS...]\n", words[0]);
        return 2;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0) {
        fprintf(stderr, "%s: the kernel takes no filter: %s\n", words[0], strerror(errno));
        return 1;
    }
    execvp(words[1], words + 1);
    fprintf(stderr, "%s: %s: %s\n", words[0], words[1], strerror(errno));
    return 127;
}
