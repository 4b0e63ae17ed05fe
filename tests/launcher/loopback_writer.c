/* usage: loopback_writer DEVICE WIDTH HEIGHT <STREAM
 *
 * A streamer that writes into a v4l2loopback device: one H.264 access unit a write(2), as a stream with access unit
 * delimiters on its standard input has them. Structures and numbers are those of the kernel's own header.
 */
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ROOM (1 << 20)

static int fail(const char *what) {
    perror(what);
    return 1;
}

/* Where the next access unit begins: a delimiter (nal_unit_type 9) with a start code of four bytes. */
static size_t find_next(const unsigned char *bytes, size_t from, size_t len) {
    for (size_t at = from; at + 5 <= len; at++)
        if (!memcmp(bytes + at, "\0\0\0\1", 4) && (bytes[at + 4] & 0x1f) == 9) return at;
    return 0;
}

int main(int count, char **words) {
    static unsigned char bytes[ROOM];
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_OUTPUT};
    size_t len = 0, next;
    ssize_t n;
    int device;

    if (count != 4) {
        fprintf(stderr, "usage: %s DEVICE WIDTH HEIGHT\n", words[0]);
        return 2;
    }
    device = open(words[1], O_RDWR);
    if (device < 0) return fail(words[1]);
    format.fmt.pix.width = atoi(words[2]);
    format.fmt.pix.height = atoi(words[3]);
    format.fmt.pix.pixelformat = V4L2_PIX_FMT_H264;
    format.fmt.pix.field = V4L2_FIELD_NONE;
    if (ioctl(device, VIDIOC_S_FMT, &format) < 0) return fail("VIDIOC_S_FMT");
    while (len < ROOM && (n = read(0, bytes + len, ROOM - len)) > 0) {
        size_t seen = len > 4 ? len - 4 : 1;
        len += n;
        while ((next = find_next(bytes, seen, len))) {
            if (write(device, bytes, next) != (ssize_t)next) return fail("write");
            memmove(bytes, bytes + next, len - next);
            len -= next;
            seen = 1;
        }
    }
    if (len == ROOM) fprintf(stderr, "an access unit of more than %d bytes, or no delimiters\n", ROOM);
    return len == ROOM;
}
