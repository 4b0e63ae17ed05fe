/* usage: gpio_v1 PROGRAM [ARGUMENTS...]
 *
 * Runs PROGRAM as a kernel from 4.8 to 5.9 would, as far as GPIO devices go: the request for lines that came with 5.10
 * (GPIO_V2_GET_LINE_IOCTL) is answered with EINVAL, as one that is not known.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/gpio.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
        /* The lower half, which comes first. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, GPIO_V2_GET_LINE_IOCTL, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (EINVAL & SECCOMP_RET_DATA)),
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
