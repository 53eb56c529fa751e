// SPDX-License-Identifier: GPL-2.0
/*
 * Loads from files of all kinds of file systems. The bytes of a file decide
 * what is loaded, however they got there, and a duplicate allocates nothing of
 * the size of the module.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/module.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "dedup_common.h"
#include "kselftest_harness.h"
#include "dedup_expect.h"

#define OTHER_NAME	"test_dedup_request"

#define FOLDER		"/tmp/fs"	/* where the file system is mounted */
#define SOURCE		"/tmp/source"	/* a folder with the files that it is made from */
#define IMAGE		"/tmp/image"	/* its disk, if it has one, ... */
#define LOOP		"/dev/loop0"	/* ... and the device for this disk */

struct filesystem {
	const char *type;
	const char *options;
	bool (*mount)(const struct filesystem *fs);
	const char *make;	/* command that makes IMAGE or other files */
	const char *tool;	/* program that is needed */
	const char *stop;	/* command that ends the server, if it is no child */
	bool is_read_only;
};

/* The server of a mounted file system, or 0. */
static pid_t server;

static bool mount_plain(const struct filesystem *fs)
{
	return !mount("none", FOLDER, fs->type, 0, fs->options);
}

/*
 * Makes IMAGE the disk of LOOP. Returns a file descriptor that keeps it attached,
 * or -1 if LOOP is in use.
 */
static int attach_disk(void)
{
	struct loop_config config = {
		.fd = open(IMAGE, O_RDWR | O_CLOEXEC),
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int writable = open(LOOP, O_RDWR | O_CLOEXEC), err, loop = -1;

	err = ioctl(writable, LOOP_CONFIGURE, &config) ? errno : 0;
	/* A disk that is open for writing cannot be mounted. */
	if (!err)
		loop = open(LOOP, O_RDONLY | O_CLOEXEC);
	else if (err != EBUSY)
		die(LOOP ": %s\n", strerror(err));
	close(writable);
	close(config.fd);
	return loop;
}

static bool mount_disk(const struct filesystem *fs)
{
	bool mounted;
	int loop;

	/* udev may not have closed the last disk yet, which stays attached until then. */
	wait_until((loop = attach_disk()) >= 0, LOOP " is in use\n");
	mounted = !mount(LOOP, FOLDER, fs->type, fs->is_read_only ? MS_RDONLY : 0, fs->options);
	close(loop);
	return mounted;
}

static bool is_mounted(void)
{
	struct stat folder, parent;

	return !stat(FOLDER, &folder) && !stat(FOLDER "/..", &parent) &&
	       folder.st_dev != parent.st_dev;
}

static bool mount_fuse(const struct filesystem *fs)
{
	server = fork_child();
	if (!server) {
		execlp("fuse2fs", "fuse2fs", "-f", IMAGE, FOLDER, NULL);
		_exit(1);
	}
	wait_until(is_mounted() || has_ended(server), "fuse2fs does not mount\n");
	return is_mounted();
}

static bool mount_share(const struct filesystem *fs)
{
	return !mount("share0", FOLDER, fs->type, 0, fs->options);
}

/* The server is the guest itself: it exports SOURCE. */
static bool mount_nfs(const struct filesystem *fs)
{
	run_command("exportfs -o rw,no_root_squash,insecure,fsid=0 127.0.0.1:" SOURCE);
	return !mount("127.0.0.1:/", FOLDER, fs->type, 0, fs->options);
}

static const struct filesystem tmpfs = {
	.type = "tmpfs",
	.mount = mount_plain,
};

static const struct filesystem ramfs = {
	.type = "ramfs",
	.mount = mount_plain,
};

static const struct filesystem overlay = {
	.type = "overlay",
	.options = "lowerdir=" SOURCE ",upperdir=/tmp/upper,workdir=/tmp/work",
	.mount = mount_plain,
	.make = "mkdir /tmp/upper /tmp/work",
};

/* Files that mke2fs creates have the same inode number and generation on all disks. */
static const struct filesystem ext4 = {
	.type = "ext4",
	.mount = mount_disk,
	.make = "mke2fs -q -t ext4 -d " SOURCE " " IMAGE " 16M",
	.tool = "mke2fs",
};

static const struct filesystem xfs = {
	.type = "xfs",
	.mount = mount_disk,
	.make = "truncate -s 300M " IMAGE " && mkfs.xfs -q " IMAGE,
	.tool = "mkfs.xfs",
};

/* swap() changes bytes on the disk, and no checksums. */
static const struct filesystem btrfs = {
	.type = "btrfs",
	.options = "nodatasum",
	.mount = mount_disk,
	.make = "truncate -s 128M " IMAGE " && mkfs.btrfs -q " IMAGE,
	.tool = "mkfs.btrfs",
};

static const struct filesystem f2fs = {
	.type = "f2fs",
	.mount = mount_disk,
	.make = "truncate -s 64M " IMAGE " && mkfs.f2fs -q " IMAGE,
	.tool = "mkfs.f2fs",
};

static const struct filesystem vfat = {
	.type = "vfat",
	.mount = mount_disk,
	.make = "mkfs.vfat -C " IMAGE " 16384",
	.tool = "mkfs.vfat",
};

static const struct filesystem iso9660 = {
	.type = "iso9660",
	.mount = mount_disk,
	.make = "xorrisofs -quiet -R -o " IMAGE " " SOURCE " 2>&1",
	.tool = "xorrisofs",
	.is_read_only = true,
};

static const struct filesystem squashfs = {
	.type = "squashfs",
	.mount = mount_disk,
	.make = "mksquashfs " SOURCE " " IMAGE " -quiet -no-progress -noI -noD -noF -no-fragments",
	.tool = "mksquashfs",
	.is_read_only = true,
};

static const struct filesystem erofs = {
	.type = "erofs",
	.mount = mount_disk,
	.make = "mkfs.erofs -E noinline_data " IMAGE " " SOURCE,
	.tool = "mkfs.erofs",
	.is_read_only = true,
};

static const struct filesystem fuse = {
	.type = "fuse",
	.mount = mount_fuse,
	.make = "mke2fs -q -t ext4 -d " SOURCE " " IMAGE " 16M",
	.tool = "fuse2fs",
};

/*
 * The server is QEMU: scripts/vm --share. It exports one folder as share0 and share1.
 * Without a cache, each read is a request to the server.
 */
static const struct filesystem plan9 = {
	.type = "9p",
	.options = "trans=virtio,version=9p2000.L,cache=none",
	.mount = mount_share,
	.make = "mkdir /tmp/server"
		" && mount -t 9p -o trans=virtio,version=9p2000.L share1 /tmp/server"
		" && rm -f /tmp/server/* && cp " SOURCE "/* /tmp/server"
		" && mount --bind /tmp/server " SOURCE,
};

static const struct filesystem nfs = {
	.type = "nfs4",
	.options = "vers=4.2,soft,addr=127.0.0.1,clientaddr=127.0.0.1",
	.mount = mount_nfs,
	.make = "ip link set lo up && rpcbind -w && modprobe nfsd"
		" && mount -t nfsd none /proc/fs/nfsd"
		" && rpc.nfsd --no-nfs-version 3 --grace-time 10 2"
		" && rpc.mountd --no-nfs-version 3 2>&1",
	.tool = "rpc.mountd",
	.stop = "rpc.nfsd 0; pkill rpc.mountd; pkill rpcbind",
};

/*
 * Modules. All images of them have the same length, compressed or not.
 */

static struct image image, other_image;	/* test_dedup, and another module */
static struct image new_build;		/* of test_dedup, with another version */

/* A file in FOLDER, and what it can consist of. */
static struct file {
	char path[PATH_MAX], source[PATH_MAX];
	struct load load;
	struct image image, other_image, new_build;
	const struct image *content;
} files[] = {
	{ FOLDER "/module.ko", SOURCE "/module.ko" },
	{
		FOLDER "/module.ko.zst", SOURCE "/module.ko.zst",
		.load.flags = MODULE_INIT_COMPRESSED_FILE
	},
};

static void make_images(void)
{
	struct image raw = read_module(MODULE_NAME), other = read_module(OTHER_NAME);
	size_t len = raw.len > other.len ? raw.len : other.len;
	static const char field[] = "\0version=";
	struct elf_shdr *modinfo;
	char *found;

	image = copy_image(&raw, len);
	other_image = copy_image(&other, len);
	new_build = copy_image(&raw, len);
	modinfo = find_section(&new_build, ".modinfo");
	found = memmem(new_build.bytes + modinfo->sh_offset, modinfo->sh_size, field,
		       sizeof(field) - 1);
	if (!found)
		die("the module has no version\n");
	found[sizeof(field) - 1] = '2';
	free_image(&raw);
	free_image(&other);
}

static bool has_version(const char *version)
{
	return is_live(MODULE_NAME) && file_says("/sys/module/" MODULE_NAME "/version", version);
}

static void unload_all(void)
{
	unload_leftover(MODULE_NAME);
	unload_leftover(OTHER_NAME);
}

/*
 * Changes of a file, by ways that differ in what the file system notices
 */

static void rename_over(const struct filesystem *fs, struct file *file, const struct image *to)
{
	char new[PATH_MAX];

	if (rename(write_image_to(new, FOLDER, to), file->path))
		die("%s: %s\n", file->path, strerror(errno));
}

static void overwrite_file(const struct filesystem *fs, struct file *file, const struct image *to)
{
	overwrite(file->path, to);
}

/* The pages of the mapping are read before they are written to. */
static void overwrite_mapped(const struct filesystem *fs, struct file *file,
			     const struct image *to)
{
	int fd = open(file->path, O_RDWR | O_CLOEXEC);
	char *bytes = mmap(NULL, to->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd < 0 || bytes == MAP_FAILED)
		die("%s: %s\n", file->path, strerror(errno));
	close(fd);
	if (memcmp(bytes, to->bytes, to->len))
		memcpy(bytes, to->bytes, to->len);
	munmap(bytes, to->len);
}

/* Mounts, and creates the files that are not there yet. */
static void mount_fs(const struct filesystem *fs)
{
	unsigned int i;

	if (!fs->mount(fs))
		die("%s: %s\n", fs->type, strerror(errno));
	for (i = 0; i < ARRAY_SIZE(files); i++)
		if (access(files[i].path, F_OK))
			rename_over(fs, &files[i], files[i].content);
}

static void unmount_fs(void)
{
	if (umount2(FOLDER, 0))
		die("umount: %s\n", strerror(errno));
	if (server && waitpid(server, NULL, 0) != server)
		die("waitpid: %s\n", strerror(errno));
	server = 0;
}

/* Replaces bytes in IMAGE, which is mostly a hole. */
static void exchange_bytes(const struct image *from, const struct image *to)
{
	int fd = open(IMAGE, O_RDWR | O_CLOEXEC);
	off_t data = 0, hole = 0;
	char *found = NULL;

	while (!found && (data = lseek(fd, hole, SEEK_DATA)) >= 0) {
		char *bytes;

		hole = lseek(fd, data, SEEK_HOLE);
		bytes = mmap(NULL, hole - data, PROT_READ | PROT_WRITE, MAP_SHARED, fd, data);
		if (bytes == MAP_FAILED)
			break;
		found = memmem(bytes, hole - data, from->bytes, from->len);
		if (found)
			memcpy(found, to->bytes, to->len);
		munmap(bytes, hole - data);
	}
	if (!found)
		die(IMAGE " does not have the file in one piece\n");
	close(fd);
}

/* The new disk, or what the server has, differs in nothing but the bytes of the file. */
static void swap(const struct filesystem *fs, struct file *file, const struct image *to)
{
	struct stat before, after;

	if (stat(file->path, &before))
		die("%s: %s\n", file->path, strerror(errno));
	unmount_fs();
	overwrite(file->source, to);
	if (!access(IMAGE, F_OK))
		exchange_bytes(file->content, to);
	file->content = to;
	mount_fs(fs);
	if (stat(file->path, &after))
		die("%s: %s\n", file->path, strerror(errno));
	if (fs->mount == mount_disk && before.st_dev != after.st_dev)
		die("%s is another device now\n", LOOP);
}

/*
 * Tests, for both files. Mounts and servers of a test end with its process.
 */

static bool has_type(const char *type)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "modprobe -q fs-%s; grep -qw %s$ /proc/filesystems", type, type);
	return !system(command);
}

static bool has_tool(const char *tool)
{
	char command[256];

	snprintf(command, sizeof(command), "command -v %s >/dev/null", tool);
	return !system(command);
}

/* Returns what the guest needs for a file system and does not have, or NULL. */
static const char *lacks(const struct filesystem *fs)
{
	if (!has_type(fs->type))
		return fs->type;
	if (fs->mount == mount_share &&
	    system("grep -qs share1 /sys/bus/virtio/drivers/9pnet_virtio/*/mount_tag"))
		return "a folder of the host";
	return fs->tool && !has_tool(fs->tool) ? fs->tool : NULL;
}

static void set_up(const struct filesystem *fs)
{
	unsigned int i;

	unload_all();
	use_own_tmp();
	make_images();
	run_command("mkdir " FOLDER " " SOURCE);
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		struct file *file = &files[i];
		bool is_compressed = file->load.flags;
		char path[PATH_MAX];

		file->image = is_compressed ? compress(&image) : image;
		file->other_image = is_compressed ? compress(&other_image) : other_image;
		file->new_build = is_compressed ? compress(&new_build) : new_build;
		if (file->image.len != file->other_image.len ||
		    file->image.len != file->new_build.len)
			die("images differ in length\n");
		file->load.path = file->path;
		file->load.args = "";
		file->content = &file->image;
		if (rename(write_image(path, file->content), file->source))
			die("%s: %s\n", file->source, strerror(errno));
	}
	if (fs->make)
		run_command("{ %s; } >/dev/null", fs->make);
	mount_fs(fs);
}

static void tear_down(const struct filesystem *fs)
{
	unload_all();
	if (!fs->stop)
		return;
	/* A client that outlived its server would keep the guest from shutting down. */
	unmount_fs();
	run_command("%s", fs->stop);
}

FIXTURE(readable)
{
};

FIXTURE_VARIANT(readable)
{
	const struct filesystem *fs;
};

FIXTURE_VARIANT_ADD(readable, tmpfs) { &tmpfs };
FIXTURE_VARIANT_ADD(readable, ramfs) { &ramfs };
FIXTURE_VARIANT_ADD(readable, overlay) { &overlay };
FIXTURE_VARIANT_ADD(readable, ext4) { &ext4 };
FIXTURE_VARIANT_ADD(readable, xfs) { &xfs };
FIXTURE_VARIANT_ADD(readable, btrfs) { &btrfs };
FIXTURE_VARIANT_ADD(readable, f2fs) { &f2fs };
FIXTURE_VARIANT_ADD(readable, vfat) { &vfat };
FIXTURE_VARIANT_ADD(readable, iso9660) { &iso9660 };
FIXTURE_VARIANT_ADD(readable, squashfs) { &squashfs };
FIXTURE_VARIANT_ADD(readable, erofs) { &erofs };
FIXTURE_VARIANT_ADD(readable, fuse) { &fuse };
FIXTURE_VARIANT_ADD(readable, plan9) { &plan9 };
FIXTURE_VARIANT_ADD(readable, nfs) { &nfs };

FIXTURE_SETUP(readable)
{
	if (lacks(variant->fs))
		SKIP(return, "needs %s", lacks(variant->fs));
	set_up(variant->fs);
}

FIXTURE_TEARDOWN(readable)
{
	tear_down(variant->fs);
}

TEST_F_TIMEOUT(readable, duplicates, TEST_LIMIT_S)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		struct load *load = &files[i].load;

		load_duplicates(_metadata, load, load, files[i].image.len, 100);
		must_unload(MODULE_NAME);
	}
}

/* The file systems of the module and of its duplicates may be of any types. */
TEST_F_TIMEOUT(readable, duplicates_elsewhere, TEST_LIMIT_S)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		struct load *load = &files[i].load, elsewhere = *load;

		elsewhere.path = files[i].source;
		load_duplicates(_metadata, load, &elsewhere, files[i].image.len, 10);
		must_unload(MODULE_NAME);
		load_duplicates(_metadata, &elsewhere, load, files[i].image.len, 10);
		must_unload(MODULE_NAME);
	}
}

typedef void change_fn(const struct filesystem *fs, struct file *file, const struct image *to);

/* Another module comes into the file. It is loaded, beside the live one. */
static void change_module(struct __test_metadata *_metadata, const struct filesystem *fs,
			  struct file *file, change_fn *change)
{
	struct counters before = read_counters(), want = {
		.mod[MODCOUNT] = 3,
		.dedup[ALREADY_LOADED] = 3,
		.dedup[BYTES_SAVED] = 3 * file->image.len,
	};

	EXPECT_EQ(0, do_load(&file->load));
	EXPECT_EQ(EEXIST, do_load(&file->load));
	change(fs, file, &file->other_image);
	EXPECT_EQ(0, do_load(&file->load));
	EXPECT_TRUE(is_live(MODULE_NAME));
	EXPECT_TRUE(is_live(OTHER_NAME));
	EXPECT_EQ(EEXIST, do_load(&file->load));
	must_unload(MODULE_NAME);
	EXPECT_EQ(EEXIST, do_load(&file->load));
	/* The first module is forgotten. */
	change(fs, file, &file->image);
	EXPECT_EQ(0, do_load(&file->load));
	EXPECT_TRUE(is_live(MODULE_NAME));
	expect_counters(_metadata, &before, &want);
	unload_all();
}

/* Another build of the live module is a duplicate, and is loaded after an unload. */
static void change_build(struct __test_metadata *_metadata, const struct filesystem *fs,
			 struct file *file, change_fn *change)
{
	struct load memory = { .image = &new_build, .args = "" };

	EXPECT_EQ(0, do_load(&file->load));
	EXPECT_TRUE(has_version("1\n"));
	change(fs, file, &file->new_build);
	EXPECT_EQ(EEXIST, do_load(&file->load));
	EXPECT_TRUE(has_version("1\n"));
	must_unload(MODULE_NAME);
	EXPECT_EQ(0, do_load(&file->load));
	EXPECT_TRUE(has_version("2\n"));
	must_unload(MODULE_NAME);
	change(fs, file, &file->image);
	EXPECT_EQ(0, do_load(&file->load));
	EXPECT_TRUE(has_version("1\n"));
	must_unload(MODULE_NAME);
	EXPECT_EQ(0, do_load(&memory));
	EXPECT_TRUE(has_version("2\n"));
	must_unload(MODULE_NAME);
}

static void change_files(struct __test_metadata *_metadata, const struct filesystem *fs,
			 change_fn *change)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		change_module(_metadata, fs, &files[i], change);
		change_build(_metadata, fs, &files[i], change);
	}
}

TEST_F_TIMEOUT(readable, disk_swapped, TEST_LIMIT_S)
{
	change_files(_metadata, variant->fs, swap);
}

FIXTURE(writable)
{
};

FIXTURE_VARIANT(writable)
{
	const struct filesystem *fs;
};

FIXTURE_VARIANT_ADD(writable, tmpfs) { &tmpfs };
FIXTURE_VARIANT_ADD(writable, ramfs) { &ramfs };
FIXTURE_VARIANT_ADD(writable, overlay) { &overlay };
FIXTURE_VARIANT_ADD(writable, ext4) { &ext4 };
FIXTURE_VARIANT_ADD(writable, xfs) { &xfs };
FIXTURE_VARIANT_ADD(writable, btrfs) { &btrfs };
FIXTURE_VARIANT_ADD(writable, f2fs) { &f2fs };
FIXTURE_VARIANT_ADD(writable, vfat) { &vfat };
FIXTURE_VARIANT_ADD(writable, fuse) { &fuse };
FIXTURE_VARIANT_ADD(writable, plan9) { &plan9 };
FIXTURE_VARIANT_ADD(writable, nfs) { &nfs };

FIXTURE_SETUP(writable)
{
	if (lacks(variant->fs))
		SKIP(return, "needs %s", lacks(variant->fs));
	set_up(variant->fs);
}

FIXTURE_TEARDOWN(writable)
{
	tear_down(variant->fs);
}

TEST_F_TIMEOUT(writable, overwritten, TEST_LIMIT_S)
{
	change_files(_metadata, variant->fs, overwrite_file);
}

TEST_F_TIMEOUT(writable, mapped, TEST_LIMIT_S)
{
	if (variant->fs == &plan9)
		SKIP(return, "9p without a cache has no writable shared mappings");
	change_files(_metadata, variant->fs, overwrite_mapped);
}

TEST_F_TIMEOUT(writable, renamed_over, TEST_LIMIT_S)
{
	change_files(_metadata, variant->fs, rename_over);
}

int main(int argc, char **argv)
{
	need_stats();
	need_dedup();
	need_mode("full");
	return test_harness_run(argc, argv);
}
