//! The system calls that a Machine's program may make: Docker's default list.
//!
//! Everything on the list is allowed, the rest is refused with EPERM; calls newer than the list
//! and `clone3`, whose flags a filter cannot see, with ENOSYS, so that libraries fall back to what
//! they did before. The list is compiled to a few dozen ranges: the kernel runs a new filter once
//! for every call number when it is installed, which a comparison per call would make ten times
//! as slow, at every start.

use libc::{SYS_clone, SYS_clone3, SYS_personality, SYS_socket, c_long, sock_filter};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

#[cfg(target_arch = "x86_64")]
const THIS_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const THIS_ARCH: u32 = 0xc000_00b7;

/// The newest call that the list knows of; later ones do not exist for the program.
const NEWEST: u32 = 462;
/// All the flags of `clone` that make namespaces.
const CLONE_NEW: u32 = 0x7e02_0000;
const AF_VSOCK: u32 = 40;
/// The personalities that Docker allows.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_GREATER_EQUAL: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;

/// Returns the filter for the program and for executed commands.
pub(crate) fn filter() -> Vec<sock_filter> {
    let mut code = vec![
        op(LOAD, ARCH),
        branch(IF_EQUAL, THIS_ARCH, 1, 0),
        op(RETURN, ENOSYS),
        op(LOAD, NUMBER),
        branch(IF_GREATER, NEWEST, 0, 1),
        op(RETURN, ENOSYS),
    ];
    if let Some(number) = call(SYS_clone3) {
        code.extend([branch(IF_EQUAL, number, 0, 1), op(RETURN, ENOSYS)]);
    }
    if let Some(number) = call(SYS_clone) {
        code.extend([
            branch(IF_EQUAL, number, 0, 4),
            op(LOAD, FIRST_ARGUMENT),
            branch(IF_ANY_BIT, CLONE_NEW, 1, 0),
            op(RETURN, ALLOW),
            op(RETURN, EPERM),
        ]);
    }
    if let Some(number) = call(SYS_socket) {
        code.extend([
            branch(IF_EQUAL, number, 0, 4),
            op(LOAD, FIRST_ARGUMENT),
            branch(IF_EQUAL, AF_VSOCK, 1, 0),
            op(RETURN, ALLOW),
            op(RETURN, EPERM),
        ]);
    }
    if let Some(number) = call(SYS_personality) {
        code.extend([branch(IF_EQUAL, number, 0, 12), op(LOAD, FIRST_ARGUMENT)]);
        for allowed in PERSONALITIES {
            code.extend([branch(IF_EQUAL, allowed, 0, 1), op(RETURN, ALLOW)]);
        }
        code.push(op(RETURN, EPERM));
    }
    for (low, high) in ranges() {
        code.extend([
            branch(IF_GREATER, high, 3, 0),
            branch(IF_GREATER_EQUAL, low, 0, 1),
            op(RETURN, ALLOW),
            op(RETURN, EPERM),
        ]);
    }
    code.push(op(RETURN, EPERM));
    code
}

/// Returns the list as ranges of numbers, lowest first.
fn ranges() -> Vec<(u32, u32)> {
    let mut numbers: Vec<u32> = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .chain(ALLOWED_NEW)
        .filter_map(|number| call(*number))
        .collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, high)) if number <= *high + 1 => *high = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

fn call(number: c_long) -> Option<u32> {
    u32::try_from(number).ok()
}

fn op(code: u16, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

#[rustfmt::skip]
const ALLOWED: &[c_long] = calls![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_chroot
    SYS_clock_adjtime SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close
    SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit
    SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync
    SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs
    SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_getcpu SYS_getcwd SYS_getdents64
    SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername SYS_getpgid
    SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid
    SYS_getrlimit SYS_get_robust_list SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt
    SYS_gettid SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1
    SYS_inotify_rm_watch SYS_io_cancel SYS_ioctl SYS_io_destroy SYS_io_getevents SYS_ioprio_get
    SYS_ioprio_set SYS_io_setup SYS_io_submit SYS_kcmp SYS_kill SYS_landlock_add_rule
    SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen
    SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise
    SYS_membarrier SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock
    SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open
    SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget
    SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at
    SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal
    SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64
    SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease SYS_process_vm_readv
    SYS_process_vm_writev SYS_pselect6 SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read
    SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg
    SYS_remap_file_pages SYS_removexattr SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq
    SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn
    SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_getaffinity
    SYS_sched_getattr SYS_sched_getparam SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr
    SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget
    SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setfsgid
    SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority SYS_setregid
    SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_set_robust_list SYS_setsid
    SYS_setsockopt SYS_set_tid_address SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt
    SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs
    SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill
    SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime
    SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate
    SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write
    SYS_writev
    SYS_fchmodat2
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[c_long] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create
    SYS_epoll_ctl_old SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat
    SYS_getdents SYS_getpgrp SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod
    SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir
    SYS_select SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Calls that have the same number everywhere and no name in libc yet: `cachestat`,
/// `map_shadow_stack`, `futex_wake`, `futex_wait`, `futex_requeue`; and `io_pgetevents`.
const ALLOWED_NEW: &[c_long] = &[451, 453, 454, 455, 456, IO_PGETEVENTS];
#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: c_long = 333;
#[cfg(not(target_arch = "x86_64"))]
const IO_PGETEVENTS: c_long = 292;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn verdict(arch: u32, number: u32, argument: u32) -> u32 {
        let code = filter();
        let (mut at, mut value) = (0_usize, 0_u32);
        for _ in 0..code.len() {
            let step = code[at];
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            at += 1 + match step.code {
                LOAD => {
                    value = match step.k {
                        NUMBER => number,
                        ARCH => arch,
                        _ => argument,
                    };
                    0
                }
                RETURN => return step.k,
                IF_EQUAL => jump(value == step.k),
                IF_GREATER => jump(value > step.k),
                IF_GREATER_EQUAL => jump(value >= step.k),
                IF_ANY_BIT => jump(value & step.k != 0),
                other => panic!("no such instruction: {other}"),
            };
        }
        panic!("the filter does not end");
    }

    fn here(number: c_long, argument: u32) -> u32 {
        verdict(THIS_ARCH, u32::try_from(number).unwrap(), argument)
    }

    #[test]
    fn what_is_on_the_list_is_allowed_and_nothing_else() {
        let special = [SYS_clone, SYS_clone3, SYS_socket, SYS_personality];
        for number in 0..=i64::from(NEWEST) {
            let listed = ALLOWED.contains(&number)
                || ALLOWED_HERE.contains(&number)
                || ALLOWED_NEW.contains(&number);
            if !special.contains(&number) {
                let expected = if listed { ALLOW } else { EPERM };
                assert_eq!(here(number, 0), expected, "call {number}");
            }
        }
        assert_eq!(here(libc::SYS_mount, 0), EPERM);
        assert_eq!(here(libc::SYS_unshare, 0), EPERM);
        assert_eq!(here(libc::SYS_bpf, 0), EPERM);
        assert_eq!(here(libc::SYS_io_uring_setup, 0), EPERM);
    }

    #[test]
    fn calls_are_judged_by_their_arguments_where_that_matters() {
        assert_eq!(here(SYS_clone, 0x11), ALLOW);
        assert_eq!(here(SYS_clone, 0x1000_0000), EPERM);
        assert_eq!(here(SYS_clone3, 0), ENOSYS);
        assert_eq!(here(SYS_socket, 2), ALLOW);
        assert_eq!(here(SYS_socket, AF_VSOCK), EPERM);
        assert_eq!(here(SYS_personality, 0xffff_ffff), ALLOW);
        assert_eq!(here(SYS_personality, 0x4_0000), EPERM);
    }

    #[test]
    fn what_is_newer_or_of_another_machine_does_not_exist() {
        assert_eq!(verdict(THIS_ARCH, NEWEST + 1, 0), ENOSYS);
        assert_eq!(verdict(0x4000_0003, 1, 0), ENOSYS);
    }

    #[test]
    fn the_filter_is_short() {
        assert!(filter().len() < 400, "{}", filter().len());
    }
}
