//! Restartable sequences (rseq(2)): a thread's view of the vCPU it runs on, kept true on every way back to the program, and critical
//! sections that are aborted when the thread was interrupted in one.

use super::Task;
use crate::errno::{Errno, EFAULT};
use crate::signal;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hal::context::UserContext;
use hal::user;
use linux_abi::process::RseqCs;
use linux_abi::signal::{SigInfo, SIGSEGV, SI_KERNEL};

const NOWHERE: u32 = u32::MAX;
// Offsets in struct rseq.
const CPU_ID_START: u64 = 0;
const RSEQ_CS: u64 = 8;
const NODE_ID: u64 = 20;
/// RSEQ_CPU_ID_UNINITIALIZED.
const UNINITIALIZED: u32 = u32::MAX;

/// The registration of one thread; changed by the thread itself.
pub struct RseqState {
    /// struct rseq of the program; 0: none.
    address: AtomicU64,
    bytes: AtomicU32,
    signature: AtomicU32,
    /// The vCPU that was stored last.
    cpu: AtomicU32,
    /// The scheduler's count of turns when it was.
    turn: AtomicU64,
}

impl Default for RseqState {
    fn default() -> Self {
        Self {
            address: AtomicU64::new(0),
            bytes: AtomicU32::new(0),
            signature: AtomicU32::new(0),
            cpu: AtomicU32::new(NOWHERE),
            turn: AtomicU64::new(0),
        }
    }
}

impl RseqState {
    pub fn get(&self) -> (u64, u32, u32) {
        (self.address.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed), self.signature.load(Ordering::Relaxed))
    }
    pub fn set(&self, address: u64, bytes: u32, signature: u32) {
        self.address.store(address, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.signature.store(signature, Ordering::Relaxed);
        self.cpu.store(NOWHERE, Ordering::Relaxed);
    }
    /// fork(2) keeps the registration; clone with CLONE_VM does not.
    pub(super) fn inherit(&self, from: &Self) {
        let (address, bytes, signature) = from.get();
        self.set(address, bytes, signature);
    }
}

/// Whether the thread runs on another vCPU than its program believes.
pub(super) fn moved(task: &Task) -> bool {
    task.rseq.address.load(Ordering::Relaxed) != 0 && task.rseq.cpu.load(Ordering::Relaxed) != hal::cpu::id() as u32
}

/// On the way back to the program.
pub(super) fn update(task: &Arc<Task>, context: &mut UserContext) {
    if task.rseq.address.load(Ordering::Relaxed) == 0 {
        return;
    }
    // Storing may fault, sleep and move the thread: until it stays.
    while moved(task) || task.rseq.turn.load(Ordering::Relaxed) != task.sched.turns() {
        task.rseq.turn.store(task.sched.turns(), Ordering::Relaxed);
        let cpu = hal::cpu::id() as u32;
        task.rseq.cpu.store(cpu, Ordering::Relaxed);
        if abort_section(task, context).and_then(|()| store_cpu(task, cpu)).is_err() {
            return fail(task);
        }
    }
}

/// Before a signal frame is built: the handler must not find the program in the middle of a section.
pub fn signal(task: &Arc<Task>, context: &mut UserContext) {
    if task.rseq.address.load(Ordering::Relaxed) != 0 && abort_section(task, context).is_err() {
        fail(task);
    }
}

fn fail(task: &Arc<Task>) {
    task.rseq.set(0, 0, 0);
    signal::force(task, SigInfo::new(SIGSEGV, SI_KERNEL));
}

fn store_cpu(task: &Task, cpu: u32) -> Result<(), Errno> {
    let address = task.rseq.address.load(Ordering::Relaxed);
    user::write(address + CPU_ID_START, &[cpu, cpu])?;
    // node_id, mm_cid: a number below the count of vCPUs that no two running threads share.
    user::write(address + NODE_ID, &[0, cpu])
}

/// The state that an unregistered area shows (rseq(2), RSEQ_FLAG_UNREGISTER).
pub fn forget(address: u64) -> Result<(), Errno> {
    user::write(address + CPU_ID_START, &[0, UNINITIALIZED])?;
    user::write(address + NODE_ID, &[0, 0])
}

fn abort_section(task: &Task, context: &mut UserContext) -> Result<(), Errno> {
    let (address, _, signature) = task.rseq.get();
    let section: u64 = user::read(address + RSEQ_CS)?;
    if section == 0 {
        return Ok(());
    }
    let cs: RseqCs = user::read(section)?;
    let end = cs.start_ip.checked_add(cs.post_commit_offset).ok_or(EFAULT)?;
    if cs.version != 0 || cs.abort_ip.wrapping_sub(cs.start_ip) < cs.post_commit_offset {
        return Err(EFAULT);
    }
    user::write(address + RSEQ_CS, &0u64)?;
    if (cs.start_ip..end).contains(&context.rip) {
        if user::load_u32(cs.abort_ip.wrapping_sub(4))? != signature {
            return Err(EFAULT);
        }
        context.rip = cs.abort_ip;
        context.fast = 0;
    }
    Ok(())
}
