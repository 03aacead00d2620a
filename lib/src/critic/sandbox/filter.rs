//! System calls that no user interface needs: a filter that the kernel keeps for the rest of a worker's life.
//!
//! What is left out reaches kernel code that was rarely meant for the hostile: namespaces, mounts, tracing, key rings, programs in
//! the kernel, rings of requests. Python, Streamlit and the packages make none of these calls.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Refused with EPERM.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// New namespaces, as flags of `clone`.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// The filters as the worker takes them: instructions in base64, one filter after the other with a comma between. Empty for
/// processors that the compiler of filters does not know.
pub(super) fn filters() -> String {
    let Some(arch) = arch() else { return String::new() };
    let filters: Option<Vec<String>> =
        [refuse(arch), unknown(arch)].into_iter().map(|program| program.map(|p| encoded(&p))).collect();
    filters.unwrap_or_default().join(",")
}

fn arch() -> Option<TargetArch> {
    match () {
        () if cfg!(target_arch = "x86_64") => Some(TargetArch::x86_64),
        () if cfg!(target_arch = "aarch64") => Some(TargetArch::aarch64),
        () if cfg!(target_arch = "riscv64") => Some(TargetArch::riscv64),
        () => None,
    }
}

fn refuse(arch: TargetArch) -> Option<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let new = |flag: &libc::c_int| {
        let flag = u64::from(flag.cast_unsigned());
        let holds = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag);
        SeccompRule::new(vec![holds.ok()?]).ok()
    };
    rules.insert(libc::SYS_clone, NAMESPACES.iter().map(new).collect::<Option<Vec<_>>>()?);
    program(rules, libc::EPERM, arch)
}

/// The flags of `clone3` stand in memory, where no filter sees them; a kernel without it is one that libraries know.
fn unknown(arch: TargetArch) -> Option<BpfProgram> {
    program(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS, arch)
}

fn program(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32, arch: TargetArch) -> Option<BpfProgram> {
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).ok()?.try_into().ok()
}

/// `struct sock_filter`, one after the other.
fn encoded(program: &BpfProgram) -> String {
    let mut bytes = Vec::with_capacity(8 * program.len());
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_filters_of_whole_instructions() {
        let text = filters();
        let programs: Vec<Vec<u8>> =
            text.split(',').map(|one| BASE64_STANDARD.decode(one).unwrap()).collect();
        assert_eq!(programs.len(), 2);
        assert!(programs.iter().all(|program| !program.is_empty() && program.len() % 8 == 0));
    }
}
