/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Captures frames from a camera by V4L2: into dma-bufs whose fds it inherits, or,
 * without any, into the driver's own memory. A line for each frame; then it goes
 * on streaming until its standard input ends. */
#include "sync.h"

#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define USAGE "vivid_capture DEVICE WIDTH HEIGHT FRAMES [DMA-BUF]..."
#define MAX_BUFFERS 8
#define OWN_BUFFERS 3
#define PATIENCE_MS 5000

struct buffer {
	int fd; /* -1: the driver's memory */
	const unsigned char *memory;
	size_t size;
};

static int call(int fd, unsigned long request, void *argument)
{
	int done;

	do {
		done = ioctl(fd, request, argument);
	} while (done < 0 && errno == EINTR);
	return done;
}

/* vivid writes a clock on its picture; without it all frames are the same. */
static void no_text(int fd)
{
	struct v4l2_queryctrl query = { .id = V4L2_CTRL_FLAG_NEXT_CTRL };

	while (call(fd, VIDIOC_QUERYCTRL, &query) == 0) {
		if (strcmp((const char *)query.name, "OSD Text Mode") == 0) {
			struct v4l2_control none = {
				.id = query.id,
				.value = query.maximum,
			};

			if (call(fd, VIDIOC_S_CTRL, &none) < 0)
				fail("VIDIOC_S_CTRL");
			return;
		}
		query.id |= V4L2_CTRL_FLAG_NEXT_CTRL;
	}
	fail("no control \"OSD Text Mode\"");
}

/* XRGB8888, as DRM calls it. */
static struct v4l2_pix_format set_format(int fd, unsigned int width, unsigned int height)
{
	int input = 0;
	struct v4l2_format format = {
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.fmt.pix = {
			.width = width,
			.height = height,
			.pixelformat = V4L2_PIX_FMT_XBGR32,
			.field = V4L2_FIELD_NONE,
		},
	};

	if (call(fd, VIDIOC_S_INPUT, &input) < 0)
		fail("VIDIOC_S_INPUT");
	if (call(fd, VIDIOC_S_FMT, &format) < 0)
		fail("VIDIOC_S_FMT");
	if (format.fmt.pix.width != width || format.fmt.pix.height != height ||
	    format.fmt.pix.pixelformat != V4L2_PIX_FMT_XBGR32) {
		errno = ENOTSUP;
		fail("VIDIOC_S_FMT gave another format");
	}
	return format.fmt.pix;
}

static struct v4l2_buffer describe(unsigned int index, const struct buffer *buffer)
{
	struct v4l2_buffer described = {
		.index = index,
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = V4L2_MEMORY_MMAP,
	};

	if (buffer->fd >= 0) {
		described.memory = V4L2_MEMORY_DMABUF;
		described.m.fd = buffer->fd;
		described.length = buffer->size;
	}
	return described;
}

static void map(int fd, unsigned int index, struct buffer *buffer)
{
	struct v4l2_buffer described = describe(index, buffer);
	off_t offset = 0;

	if (buffer->fd >= 0) {
		off_t size = lseek(buffer->fd, 0, SEEK_END);

		if (size < 0)
			fail("lseek");
		buffer->size = size;
		fd = buffer->fd;
	} else {
		if (call(fd, VIDIOC_QUERYBUF, &described) < 0)
			fail("VIDIOC_QUERYBUF");
		buffer->size = described.length;
		offset = described.m.offset;
	}
	buffer->memory = mmap(NULL, buffer->size, PROT_READ, MAP_SHARED, fd, offset);
	if (buffer->memory == MAP_FAILED)
		fail("mmap");
}

static void queue(int fd, unsigned int index, const struct buffer *buffer)
{
	struct v4l2_buffer described = describe(index, buffer);

	if (call(fd, VIDIOC_QBUF, &described) < 0)
		fail("VIDIOC_QBUF");
}

/* The next buffer with a frame in it. */
static struct v4l2_buffer dequeue(int fd, enum v4l2_memory memory)
{
	struct v4l2_buffer filled = {
		.type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
		.memory = memory,
	};
	struct pollfd waits = { .fd = fd, .events = POLLIN };

	while (call(fd, VIDIOC_DQBUF, &filled) < 0) {
		if (errno != EAGAIN)
			fail("VIDIOC_DQBUF");
		switch (poll(&waits, 1, PATIENCE_MS)) {
		case 0:
			errno = ETIMEDOUT;
			/* fall through */
		case -1:
			if (errno != EINTR)
				fail("poll");
		}
	}
	if (filled.flags & V4L2_BUF_FLAG_ERROR) {
		errno = EIO;
		fail("a frame");
	}
	return filled;
}

/* FNV-1a, of the frame's bytes. */
static uint64_t checksum(const struct buffer *buffer, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325;
	size_t i;

	if (buffer->fd >= 0)
		sync_access(buffer->fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
	for (i = 0; i < size; i++)
		hash = (hash ^ buffer->memory[i]) * 0x100000001b3;
	if (buffer->fd >= 0)
		sync_access(buffer->fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
	return hash;
}

static void until_input_ends(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}

int main(int argc, char **argv)
{
	enum v4l2_buf_type type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
	struct v4l2_requestbuffers request = { .type = type };
	struct buffer buffers[MAX_BUFFERS];
	struct v4l2_pix_format format;
	unsigned long frames;
	unsigned int i;
	int fd;

	if (argc < 5 || argc - 5 > MAX_BUFFERS)
		usage(USAGE);
	request.memory = argc > 5 ? V4L2_MEMORY_DMABUF : V4L2_MEMORY_MMAP;
	request.count = argc > 5 ? argc - 5 : OWN_BUFFERS;
	frames = number(argv[4]);

	fd = open(argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fail(argv[1]);
	format = set_format(fd, number(argv[2]), number(argv[3]));
	no_text(fd);
	i = request.count;
	if (call(fd, VIDIOC_REQBUFS, &request) < 0)
		fail("VIDIOC_REQBUFS");
	if (request.count != i) {
		errno = ENOBUFS;
		fail("VIDIOC_REQBUFS gave another number");
	}
	for (i = 0; i < request.count; i++) {
		buffers[i].fd = argc > 5 ? (int)number(argv[5 + i]) : -1;
		map(fd, i, &buffers[i]);
		queue(fd, i, &buffers[i]);
	}
	if (call(fd, VIDIOC_STREAMON, &type) < 0)
		fail("VIDIOC_STREAMON");
	for (; frames; frames--) {
		struct v4l2_buffer filled = dequeue(fd, request.memory);
		const struct buffer *buffer = &buffers[filled.index];

		if (filled.bytesused != format.sizeimage) {
			errno = EMSGSIZE;
			fail("a frame of another size");
		}
		printf("buffer %u bytes %u checksum %016llx\n", filled.index,
		       filled.bytesused,
		       (unsigned long long)checksum(buffer, filled.bytesused));
		queue(fd, filled.index, buffer);
	}
	fflush(stdout);
	until_input_ends();
	if (call(fd, VIDIOC_STREAMOFF, &type) < 0)
		fail("VIDIOC_STREAMOFF");
	return 0;
}
