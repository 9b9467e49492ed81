//! Kernel stacks and the switch between them.
//!
//! A thread's stack ends with the [`UserContext`] of its program. `running` is true from the moment a vCPU chose the thread until that
//! vCPU has left its stack; whoever wants to run it elsewhere waits for that.

use crate::context::UserContext;
use crate::cpu::{self, percpu};
use crate::entry;
use crate::frame::Block;
use crate::paging::Root;
use crate::phys;
use crate::sync::SpinLock;
use crate::xstate::XState;
use alloc::sync::Arc;
use core::any::Any;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::size_of;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// 32 KiB, touched lazily.
const STACK_ORDER: usize = 3;
const STACK_BYTES: u64 = 4096 << STACK_ORDER;
const CANARY: u64 = 0x6c69_7465_626f_7821;

/// What can be switched to: the library OS's task around a [`Thread`].
pub trait Runnable: Any + Send + Sync {
    fn thread(&self) -> &Thread;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

pub struct Thread {
    stack: Option<Block>,
    saved_sp: UnsafeCell<u64>,
    running: AtomicBool,
    /// The program's extended state while the thread does not run. None: never runs a program.
    xstate: UnsafeCell<Option<XState>>,
    fs_base: AtomicU64,
    gs_base: AtomicU64,
    root: SpinLock<Option<Arc<Root>>>,
}

// SAFETY: the cells are touched only by the vCPU that holds `running`, or by the creator before the first run.
unsafe impl Sync for Thread {}
// SAFETY: as above.
unsafe impl Send for Thread {}

impl Thread {
    /// A thread that starts in a program with these registers. None: out of memory.
    pub fn user(context: &UserContext, xstate: XState, fs_base: u64) -> Option<Self> {
        let thread = Self::with_stack(Some(xstate), 0, 0)?;
        // SAFETY: the new stack is ours alone; its top is laid out for the context.
        unsafe { *(thread.context_address() as *mut UserContext) = *context };
        thread.fs_base.store(fs_base, Ordering::Relaxed);
        Some(thread)
    }

    /// A thread of the library OS itself.
    pub fn kernel(entry: fn(usize) -> !, argument: usize) -> Option<Self> {
        Self::with_stack(None, entry as usize as u64, argument as u64)
    }

    /// The thread that this vCPU runs on since boot: its idle thread.
    pub fn boot() -> Self {
        Self {
            stack: None,
            saved_sp: UnsafeCell::new(0),
            running: AtomicBool::new(true),
            xstate: UnsafeCell::new(None),
            fs_base: AtomicU64::new(0),
            gs_base: AtomicU64::new(0),
            root: SpinLock::new(None),
        }
    }

    fn with_stack(xstate: Option<XState>, entry: u64, argument: u64) -> Option<Self> {
        let stack = Block::new(STACK_ORDER)?;
        let base = phys::pointer::<u64>(stack.address());
        let mut thread = Self { stack: Some(stack), ..Self::boot() };
        thread.running = AtomicBool::new(false);
        thread.xstate = UnsafeCell::new(xstate);
        // What `hal_switch` pops: r15 r14 r13 r12 rbx rbp, then the return address.
        let sp = thread.context_address() - 7 * 8;
        let words = [0, 0, argument, entry, 0, 0, entry::addresses().thread_start];
        // SAFETY: inside the new stack, below the context.
        unsafe {
            *base = CANARY;
            core::ptr::copy_nonoverlapping(words.as_ptr(), sp as *mut u64, words.len());
            *thread.saved_sp.get() = sp;
        }
        Some(thread)
    }

    fn stack_top(&self) -> u64 {
        self.stack.as_ref().map_or(0, |stack| stack.address() + abi::layout::LIBOS_BASE + STACK_BYTES)
    }

    fn context_address(&self) -> u64 {
        self.stack_top() - size_of::<UserContext>() as u64
    }

    /// The address space to load when this thread runs. None: whatever is loaded.
    pub fn set_root(&self, root: Option<Arc<Root>>) {
        *self.root.lock() = root;
    }

    /// FS base of the program. For the running thread the live register.
    pub fn fs_base(&self) -> u64 {
        if self.is_current() {
            let base: u64;
            // SAFETY: RDFSBASE is allowed (CR4.FSGSBASE).
            unsafe { asm!("rdfsbase {}", out(reg) base, options(nostack, nomem)) };
            base
        } else {
            self.fs_base.load(Ordering::Relaxed)
        }
    }

    pub fn set_fs_base(&self, base: u64) {
        self.fs_base.store(base, Ordering::Relaxed);
        if self.is_current() {
            // SAFETY: the library OS does not use FS.
            unsafe { asm!("wrfsbase {}", in(reg) base, options(nostack, nomem)) };
        }
    }

    /// The program's GS base, 0 if it never set one.
    pub fn gs_base(&self) -> u64 {
        self.gs_base.load(Ordering::Relaxed)
    }

    pub fn set_gs_base(&self, base: u64) {
        self.gs_base.store(base, Ordering::Relaxed);
        if self.is_current() {
            cpu::set_user_gs((base != 0).then_some(base));
        }
    }

    /// A copy of the running program's extended state, for fork. XMM registers: see its UserContext.
    pub fn save_xstate(&self) -> XState {
        let mut state = XState::initial();
        self.save_xstate_to(&mut state);
        state
    }

    /// The same into an area of any content, for signal frames.
    pub fn save_xstate_to(&self, state: &mut XState) {
        assert!(self.is_current());
        state.save();
    }

    /// Loads a state into the registers of the running program (sigreturn, execve).
    pub fn load_xstate(&self, state: &XState) {
        assert!(self.is_current());
        state.restore();
    }

    pub fn is_current(&self) -> bool {
        // SAFETY: `local` is this vCPU's, and library-OS code is not preempted.
        let local = unsafe { &*percpu().local.get() };
        local.current.as_ref().is_some_and(|current| core::ptr::eq(current.thread(), self))
    }

    /// Whether a vCPU runs it or has yet to leave its stack.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether it can run on vCPU `cpu` without an address space being loaded there.
    pub fn is_loaded(&self, cpu: usize) -> bool {
        self.root.lock().as_ref().is_none_or(|root| root.loaded().load(Ordering::Relaxed) & (1 << cpu) != 0)
    }

    /// Loads the address space that [`Self::set_root`] named now (execve).
    pub fn activate(&self) {
        let root = self.root.lock().clone();
        if let Some(root) = root {
            cpu::load_root(&root);
        }
    }
}

/// The thread that runs here. None only before [`become_idle`].
pub fn current() -> Option<Arc<dyn Runnable>> {
    // SAFETY: as in is_current.
    unsafe { (*percpu().local.get()).current.clone() }
}

/// Declares the boot stack's thread (made by [`Thread::boot`]) as this vCPU's running thread.
pub fn become_idle(idle: Arc<dyn Runnable>) {
    // SAFETY: as in is_current.
    unsafe { (*percpu().local.get()).current = Some(idle) };
}

extern "C" {
    /// `entry.s`: saves callee-saved registers and the stack pointer to `*from`, takes those at `to`.
    fn hal_switch(from: *mut u64, to: u64);
}

/// Leaves the current thread and runs `next`. Returns when somebody switches back.
pub fn switch_to(next: Arc<dyn Runnable>) {
    let cpu = percpu();
    // SAFETY: as in is_current.
    let local = unsafe { &mut *cpu.local.get() };
    let previous = local.current.take().expect("a thread runs");
    if core::ptr::eq(previous.thread(), next.thread()) {
        local.current = Some(previous);
        return;
    }
    cpu::counters().context_switches.fetch_add(1, Ordering::Relaxed);
    let target = next.thread();
    while target.running.swap(true, Ordering::Acquire) {
        while target.running.load(Ordering::Relaxed) {
            core::hint::spin_loop();
        }
    }
    let from = previous.thread();
    // SAFETY: the running thread's cells are this vCPU's.
    if let Some(state) = unsafe { (*from.xstate.get()).as_mut() } {
        state.save();
        let base: u64;
        // SAFETY: RDFSBASE is allowed.
        unsafe { asm!("rdfsbase {}", out(reg) base, options(nostack, nomem)) };
        from.fs_base.store(base, Ordering::Relaxed);
    }
    if let Some(stack) = &from.stack {
        // SAFETY: the bottom word of the stack.
        let canary = unsafe { *phys::pointer::<u64>(stack.address()) };
        assert!(canary == CANARY, "kernel stack overflow");
    }
    let saved = from.saved_sp.get();
    // SAFETY: `running` of the target is ours now.
    let to = unsafe { *target.saved_sp.get() };
    // SAFETY: this vCPU's own block.
    unsafe { (*core::ptr::from_ref(cpu).cast_mut()).stack_top = target.stack_top() };
    local.current = Some(next);
    local.previous = Some(previous);
    // SAFETY: both stacks are alive: `previous` is held until the other side has finished the switch.
    unsafe { hal_switch(saved, to) };
    finish_switch();
}

/// On the new stack: the old thread may now run elsewhere (it need not wait for the new one's address space, which costs an exit), and
/// the new one's program state comes in.
fn finish_switch() {
    // SAFETY: as in is_current.
    let local = unsafe { &mut *percpu().local.get() };
    if let Some(previous) = local.previous.take() {
        previous.thread().running.store(false, Ordering::Release);
        drop(previous);
    }
    let Some(current) = current() else { return };
    let thread = current.thread();
    thread.activate();
    // SAFETY: as in switch_to.
    if let Some(state) = unsafe { (*thread.xstate.get()).as_ref() } {
        state.restore();
        let base = thread.fs_base.load(Ordering::Relaxed);
        // SAFETY: the library OS does not use FS.
        unsafe { asm!("wrfsbase {}", in(reg) base, options(nostack, nomem)) };
        let gs = thread.gs_base.load(Ordering::Relaxed);
        cpu::set_user_gs((gs != 0).then_some(gs));
    }
}

/// First Rust code of a new thread, on its own stack. Returns for a user thread: `entry.s` then leaves to the program.
#[no_mangle]
extern "C" fn hal_thread_begin(entry: u64, argument: usize) {
    finish_switch();
    if entry == 0 {
        // The library OS may have something to do before the program's first instruction: `before_return`.
        cpu::set_pending();
    }
    if entry != 0 {
        // SAFETY: `Thread::kernel` stored a function of this type.
        let entry: fn(usize) -> ! = unsafe { core::mem::transmute(entry as usize) };
        entry(argument);
    }
}
