"""Which system calls a method's process has no use for: their numbers on x86-64 and on 64-bit ARM.

Landlock keeps a process from opening files; this list is what it would let through: other processes, sockets, what
belongs to a file without opening it (mode, owner, times), files without a name, other cores than its own, mounts, and
rarely used parts of the kernel.
"""

from dataclasses import dataclass

LAST_KNOWN = 469
"""Later calls are younger than this list, so they do not exist here."""

NEVER = """
fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, ptrace 101 117, kcmp 312 272, tkill 200 130, ioprio_set 251 30
process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, process_mrelease 448 448
pidfd_open 434 434, pidfd_getfd 438 438, pidfd_send_signal 424 424, migrate_pages 256 238
socket 41 198, socketpair 53 199, memfd_create 319 279, memfd_secret 447 447
shmget 29 194, shmat 30 196, shmctl 31 195, shmdt 67 197, msgget 68 186, msgsnd 69 189, msgrcv 70 188, msgctl 71 187
semget 64 190, semop 65 193, semctl 66 191, semtimedop 220 192, mq_open 240 180, mq_unlink 241 181
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, truncate 76 45, mknod 133 -, mknodat 259 33
chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88
setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, setxattrat 463 463, file_setattr 469 469
removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16, removexattrat 466 466
name_to_handle_at 303 264, open_by_handle_at 304 265, fanotify_init 300 262, fanotify_mark 301 263
inotify_init 253 -, inotify_init1 294 26, inotify_add_watch 254 27, quotactl 179 60, quotactl_fd 443 443
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, unshare 272 97, setns 308 268, mount_setattr 442 442
move_mount 429 429, open_tree 428 428, open_tree_attr 467 467, fsopen 430 430, fsconfig 431 431, fsmount 432 432
fspick 433 433, statmount 457 457, listmount 458 458, swapon 167 224, swapoff 168 225, reboot 169 142, acct 163 89
sethostname 170 161, setdomainname 171 162, settimeofday 164 170, clock_settime 227 112, adjtimex 159 171
clock_adjtime 305 266, syslog 103 116, iopl 172 -, ioperm 173 -, modify_ldt 154 -, vhangup 153 58, personality 135 92
kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273, delete_module 176 106
lookup_dcookie 212 18, uselib 134 -, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427
bpf 321 280, userfaultfd 323 282, perf_event_open 298 241, add_key 248 217, request_key 249 218, keyctl 250 219
seccomp 317 277, lsm_set_self_attr 460 460, setuid 105 146, setgid 106 144, setreuid 113 145, setregid 114 143
setgroups 116 159, setresuid 117 147, setresgid 119 149, setfsuid 122 151, setfsgid 123 152, capset 126 91
sched_setaffinity 203 122, io_setup 206 0
"""
"""Refused whatever their arguments."""

ON_ITSELF = """
kill 62 129, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, prlimit64 302 261, move_pages 279 239
sched_setscheduler 144 119, sched_setparam 142 118, sched_setattr 314 274
get_robust_list 274 100
"""
"""Allowed where their first argument is the caller's own process id, or 0 where that is not a group of processes."""

BY_ARGUMENT = """
clone 56 220, clone3 435 435, setpriority 141 140, prctl 157 167, ioctl 16 29, fcntl 72 25
open 2 -, openat 257 56, openat2 437 437, fallocate 285 47, close_range 436 436
"""

ZERO_IS_A_GROUP = ("kill", "rt_sigqueueinfo", "tgkill", "rt_tgsigqueueinfo")
FORBIDDEN_PRCTL = (1, 4, 22, 35, 0x59616D61)  # PDEATHSIG, DUMPABLE, SECCOMP, MM, PTRACER
FORBIDDEN_FCNTL = (8, 10, 15, 1024, 1026, 1031)  # SETOWN, SETSIG, SETOWN_EX (signals to others), SETLEASE, NOTIFY,
# and SETPIPE_SZ: a user has room for 64 MiB in large pipes, and others' are small then
FORBIDDEN_IOCTL = (0x5412, 0x541C, 0x8901, 0x8902)  # type into a terminal (TIOCSTI, TIOCLINUX), FIOSETOWN, SIOCSPGRP
FORBIDDEN_IOCTL_TYPES = (0x6600, 0x5800)  # 'f' and 'X': a file's flags, encryption and verity; file systems
WITHOUT_NAME = 0x00400000  # of `open`: O_TMPFILE
THREAD, FILES, NEW_NAMESPACES = 0x00010000, 0x00000400, 0x7E020000  # flags of `clone`
UNSHARE = 2  # of `close_range`


@dataclass(frozen=True)
class Machine:
    """A processor architecture, as seccomp names it."""

    audit_arch: int
    column: int
    has_x32: bool

    def numbers(self, table: str) -> dict[str, int]:
        """The calls of `table` that this architecture has, by name."""
        rows = [row.split() for row in table.replace("\n", ",").split(",") if row.strip()]
        return {row[0]: int(row[self.column]) for row in rows if row[self.column] != "-"}


MACHINES = {"x86_64": Machine(0xC000003E, 1, has_x32=True), "aarch64": Machine(0xC00000B7, 2, has_x32=False)}
