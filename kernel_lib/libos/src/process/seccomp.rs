//! Secure computing (seccomp(2)): strict mode, filters, and the filter that the container's configuration asks for.
//!
//! As in Linux, a bitmap of calls that a chain of filters always allows is worked out when a filter is added, so that most calls cost one
//! bit test.

use super::bpf::Program;
use super::{exit, Task};
use crate::errno::{Errno, ENOSYS};
use crate::ptrace;
use crate::signal;
use crate::syscalls::NUMBERS;
use crate::SysResult;
use abi::config::{SeccompArg, SeccompSpec};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use hal::context::UserContext;
use hal::sync::SpinLock;
use linux_abi::seccomp::{
    SeccompData, AUDIT_ARCH_X86_64, SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT, SECCOMP_RET_ACTION_FULL,
    SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};
use linux_abi::signal::{SigInfo, SIGKILL, SIGSYS};

const WORDS: usize = NUMBERS.div_ceil(64);
/// What strict mode leaves: read, write, exit, rt_sigreturn.
const STRICT: [u64; 4] = [0, 1, 60, 15];

/// One filter; older ones hang behind it.
pub struct Filter {
    rules: Rules,
    /// Calls that this filter and all older ones allow whatever the arguments are.
    always: [u64; WORDS],
    older: Option<Arc<Filter>>,
    /// Instructions of the whole chain, for the limit.
    pub weight: usize,
}

enum Rules {
    Program(Program),
    /// linux.seccomp of the OCI configuration.
    Container(SeccompSpec),
}

impl Rules {
    fn run(&self, data: &SeccompData) -> u32 {
        match self {
            Self::Program(program) => program.run(data),
            Self::Container(spec) => container_action(spec, data),
        }
    }
    fn constant_for(&self, number: u32) -> Option<u32> {
        match self {
            Self::Program(program) => program.constant_for(number),
            Self::Container(spec) => {
                let mut rules = spec.rules.iter().filter(|rule| rule.syscalls.contains(&number));
                match rules.next() {
                    None => Some(spec.default_action),
                    Some(rule) if rule.args.is_empty() => Some(rule.action),
                    Some(_) => None,
                }
            }
        }
    }
    fn weight(&self) -> usize {
        match self {
            Self::Program(_) => 4,
            Self::Container(spec) => spec.rules.len(),
        }
    }
}

/// As libseccomp compiles it: the first rule that names the call and whose conditions all hold.
fn container_action(spec: &SeccompSpec, data: &SeccompData) -> u32 {
    let holds = |argument: &SeccompArg| {
        let value = data.args.get(argument.index as usize).copied().unwrap_or(0);
        match argument.op.as_str() {
            "ne" => value != argument.value,
            "lt" => value < argument.value,
            "le" => value <= argument.value,
            "eq" => value == argument.value,
            "ge" => value >= argument.value,
            "gt" => value > argument.value,
            "masked_eq" => value & argument.value == argument.value_two,
            _ => false,
        }
    };
    let rule = spec.rules.iter().find(|rule| rule.syscalls.contains(&data.nr) && rule.args.iter().all(holds));
    rule.map_or(spec.default_action, |rule| rule.action)
}

/// The thread's state.
#[derive(Default)]
pub struct Seccomp {
    mode: AtomicU8,
    filter: SpinLock<Option<Arc<Filter>>>,
}

impl Seccomp {
    #[inline]
    pub fn is_on(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != 0
    }
    pub fn mode(&self) -> u32 {
        u32::from(self.mode.load(Ordering::Relaxed))
    }
    pub fn set_strict(&self) {
        self.mode.store(SECCOMP_MODE_STRICT as u8, Ordering::Relaxed);
    }
    pub(super) fn inherit(&self, from: &Self) {
        *self.filter.lock() = from.filter.lock().clone();
        self.mode.store(from.mode.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    pub fn filter(&self) -> Option<Arc<Filter>> {
        self.filter.lock().clone()
    }
    /// Filters in the chain, for /proc/PID/status.
    pub fn depth(&self) -> usize {
        let mut depth = 0;
        let mut at = self.filter();
        while let Some(filter) = at {
            depth += 1;
            at = filter.older.clone();
        }
        depth
    }
    fn push(&self, rules: Rules) {
        let older = self.filter();
        let weight = rules.weight() + older.as_ref().map_or(0, |filter| filter.weight);
        let mut always = [0; WORDS];
        for number in 0..NUMBERS {
            let before = older.as_ref().is_none_or(|filter| filter.always[number / 64] & 1 << (number % 64) != 0);
            if before && rules.constant_for(number as u32).is_some_and(|action| action & SECCOMP_RET_ACTION_FULL == SECCOMP_RET_ALLOW) {
                always[number / 64] |= 1 << (number % 64);
            }
        }
        *self.filter.lock() = Some(Arc::new(Filter { rules, always, older, weight }));
        self.mode.store(SECCOMP_MODE_FILTER as u8, Ordering::Relaxed);
    }
    pub fn push_program(&self, program: Program) {
        self.push(Rules::Program(program));
    }
    pub fn push_container(&self, spec: &SeccompSpec) {
        self.push(Rules::Container(spec.clone()));
    }
    /// SECCOMP_FILTER_FLAG_TSYNC: whether `self`'s chain is one that `other` may take over: its own is an ancestor of it.
    pub fn is_ancestor_of(&self, other: &Self) -> bool {
        if self.mode() == SECCOMP_MODE_DISABLED {
            return true;
        }
        let Some(own) = self.filter() else { return false };
        let mut at = other.filter();
        while let Some(filter) = at {
            if Arc::ptr_eq(&filter, &own) {
                return true;
            }
            at = filter.older.clone();
        }
        false
    }
    pub fn synchronize(&self, from: &Self) {
        self.inherit(from);
    }
}

/// What becomes of a call.
pub enum Verdict {
    Run,
    Answer(SysResult),
}

/// Whether the filters let the call through.
pub fn check(task: &Arc<Task>, context: &mut UserContext) -> Verdict {
    match decide(task, context) {
        Decision::Done(verdict) => verdict,
        Decision::Ask(data) if !ptrace::filtered(task, context, data) => Verdict::Answer(Err(ENOSYS)),
        Decision::Ask(_) if context.orig_rax == u64::MAX || task.signals.must_exit() => Verdict::Answer(Ok(context.rax as usize)),
        // The tracer may have made another call of it.
        Decision::Ask(_) => match decide(task, context) {
            Decision::Done(verdict) => verdict,
            Decision::Ask(_) => Verdict::Run,
        },
    }
}

enum Decision {
    Done(Verdict),
    /// SECCOMP_RET_TRACE, with the filter's data.
    Ask(u32),
}

fn decide(task: &Arc<Task>, context: &UserContext) -> Decision {
    let number = context.orig_rax;
    if task.seccomp.mode() == SECCOMP_MODE_STRICT {
        if STRICT.contains(&number) {
            return Decision::Done(Verdict::Run);
        }
        exit::begin_group_exit(&task.process, SIGKILL as u32);
        return Decision::Done(Verdict::Answer(Err(ENOSYS)));
    }
    let Some(newest) = task.seccomp.filter() else { return Decision::Done(Verdict::Run) };
    let index = number as usize;
    if index < NUMBERS && newest.always[index / 64] & 1 << (index % 64) != 0 {
        return Decision::Done(Verdict::Run);
    }
    let data = SeccompData { nr: number as u32, arch: AUDIT_ARCH_X86_64, instruction_pointer: context.rip, args: context.args() };
    let action = strictest(&newest, &data);
    match action & SECCOMP_RET_ACTION_FULL {
        SECCOMP_RET_TRACE => Decision::Ask(action & SECCOMP_RET_DATA),
        _ => Decision::Done(act(task, context, action)),
    }
}

/// Every filter of the chain runs; the strictest action counts, of equals the newest (seccomp(2)).
fn strictest(newest: &Arc<Filter>, data: &SeccompData) -> u32 {
    let order = |action: u32| (action & SECCOMP_RET_ACTION_FULL) as i32;
    let mut result = SECCOMP_RET_ALLOW;
    let mut at = Some(newest.clone());
    while let Some(filter) = at {
        let action = filter.rules.run(data);
        if order(action) < order(result) {
            result = action;
        }
        at = filter.older.clone();
    }
    result
}

fn act(task: &Arc<Task>, context: &UserContext, action: u32) -> Verdict {
    let data = action & SECCOMP_RET_DATA;
    match action & SECCOMP_RET_ACTION_FULL {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG => Verdict::Run,
        SECCOMP_RET_ERRNO => Verdict::Answer(if data == 0 { Ok(0) } else { Err(Errno(data.min(4095) as i32)) }),
        SECCOMP_RET_TRAP => {
            signal::force(task, SigInfo::seccomp(context.rip, context.orig_rax as i32, data));
            // The call is not run: the handler finds its number in RAX.
            Verdict::Answer(Ok(context.orig_rax as usize))
        }
        // Nobody listens.
        SECCOMP_RET_USER_NOTIF => Verdict::Answer(Err(ENOSYS)),
        SECCOMP_RET_KILL_THREAD if task.process.threads.lock().len() > 1 => {
            exit::end_current(task, SIGSYS as u32);
            Verdict::Answer(Err(ENOSYS))
        }
        _ => {
            exit::begin_group_exit(&task.process, SIGSYS as u32);
            Verdict::Answer(Err(ENOSYS))
        }
    }
}

/// SECCOMP_GET_ACTION_AVAIL.
pub fn is_available(action: u32) -> bool {
    let known: Vec<u32> = alloc::vec![
        SECCOMP_RET_KILL_PROCESS,
        SECCOMP_RET_KILL_THREAD,
        SECCOMP_RET_TRAP,
        SECCOMP_RET_ERRNO,
        SECCOMP_RET_TRACE,
        SECCOMP_RET_LOG,
        SECCOMP_RET_ALLOW,
    ];
    known.contains(&action)
}
