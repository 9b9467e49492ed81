//! Processes that come from outside of the container: PID 1 and those of `exec`. They appear in the tree without a parent, set themselves
//! up in their own first moments, and become their program.

use super::exec::{execute, Program};
use super::{begin_group_exit, default_limits, tree, Begin, Credentials, Inherit, Process, Session, Task};
use crate::boot;
use crate::errno::{Errno, EACCES, EINVAL, ENOENT, ENOMEM, ENOTDIR};
use crate::fs::{self, FdTable, FsContext, OpenFile};
use crate::sched;
use crate::signal::{ProcessSignals, SigSet, TaskSignals};
use abi::config::{ProcessSpec, SeccompSpec};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hal::context::UserContext;
use hal::thread::Thread;
use linux_abi::resource::RLIM_NLIMITS;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit statuses of a shell: not found, cannot be executed.
const NOT_FOUND: u32 = 127;
const NOT_EXECUTABLE: u32 = 126;

/// What a process from outside is to become.
pub struct StartRequest {
    pub spec: ProcessSpec,
    pub seccomp: Option<SeccompSpec>,
    pub personality: u32,
}

/// A failure with the words for the user.
struct Failure {
    errno: Errno,
    message: String,
}

/// Makes the process and lets it run; how its program's execve went is reported by [`boot`]. `token`: of the control message, 0 for PID 1.
pub fn start(token: u32, request: StartRequest, root: &FsContext) -> Result<u32, Errno> {
    let spec = &request.spec;
    let context = root.duplicate();
    if let Some(umask) = spec.umask {
        context.set_umask(umask);
    }
    let inherit = Inherit {
        files: Some(FdTable::new()),
        fs: Some(context),
        memory: None,
        credentials: Arc::new(credentials(spec)),
        name: *b"litebox:init\0\0\0\0",
        signals: TaskSignals::new(SigSet::EMPTY, crate::signal::AltStack::default()),
    };
    let thread = Thread::user(&UserContext::new(0, 0), hal::xstate::XState::initial(), 0).ok_or(ENOMEM)?;
    let pid = tree::with(|tree| if token == 0 { tree.allocate_exact(tree::INIT) } else { tree.allocate() })?;
    let process = Process::new(pid, Weak::new(), pid, Session::new(pid), ProcessSignals::default());
    process.exec_token.store(token, Ordering::Relaxed);
    process.oom_score_adj.store(spec.oom_score_adj.unwrap_or(0), Ordering::Relaxed);
    let process = Arc::new(process);
    *process.limits.lock() = limits(spec)?;
    let task = Arc::new(Task::new(pid, process.clone(), thread, inherit));
    task.no_new_privs.store(spec.no_new_privileges, Ordering::Relaxed);
    task.personality.store(request.personality, Ordering::Relaxed);
    *task.begin.lock() = Begin::Execute(Box::new(request));
    process.threads.lock().push(task.clone());
    tree::with(|tree| {
        tree.add_task(&task);
        tree.add_process(&process);
    });
    process.timers.watch_cpu_limit(&process);
    sched::start(&task);
    Ok(pid)
}

fn credentials(spec: &ProcessSpec) -> Credentials {
    let mut groups = spec.additional_gids.clone();
    groups.sort_unstable();
    groups.dedup();
    let capabilities = &spec.capabilities;
    Credentials {
        uid: spec.uid,
        euid: spec.uid,
        suid: spec.uid,
        fsuid: spec.uid,
        gid: spec.gid,
        egid: spec.gid,
        sgid: spec.gid,
        fsgid: spec.gid,
        groups,
        effective: capabilities.effective,
        permitted: capabilities.permitted,
        inheritable: capabilities.inheritable,
        bounding: capabilities.bounding,
        ambient: capabilities.ambient & capabilities.permitted & capabilities.inheritable,
        securebits: 0,
    }
}

fn limits(spec: &ProcessSpec) -> Result<[(u64, u64); RLIM_NLIMITS], Errno> {
    let mut limits = default_limits();
    for limit in &spec.rlimits {
        *limits.get_mut(limit.resource as usize).ok_or(EINVAL)? = (limit.soft, limit.hard);
    }
    Ok(limits)
}

impl StartRequest {
    /// In the new process, before anything else.
    pub(super) fn run(self: Box<Self>, task: &Arc<Task>, context: &mut UserContext) {
        let token = task.process.exec_token.load(Ordering::Relaxed);
        let outcome = self.prepare(task).and_then(|program| {
            let name = String::from_utf8_lossy(&program.name).into_owned();
            execute(task, context, program).map_err(|errno| Failure { errno, message: explain(&name, errno) })
        });
        drop(self);
        match outcome {
            Ok(()) => boot::program_started(token, task.process.pid, 0, String::new()),
            Err(failure) => {
                // Its end is not reported again: the answer to the request says it all.
                task.process.exec_token.store(0, Ordering::Relaxed);
                boot::program_started(token, task.process.pid, failure.errno.0, failure.message);
                let status = if failure.errno == ENOENT { NOT_FOUND } else { NOT_EXECUTABLE };
                begin_group_exit(&task.process, status << 8);
            }
        }
    }

    fn prepare(&self, task: &Arc<Task>) -> Result<Program, Failure> {
        let spec = &self.spec;
        self.open_streams(task)?;
        let cwd = if spec.cwd.is_empty() { "/" } else { &spec.cwd };
        change_directory(task, cwd.as_bytes())
            .map_err(|errno| Failure { errno, message: format!("chdir to cwd ({cwd:?}): {}", describe(errno)) })?;
        if let Some(seccomp) = &self.seccomp {
            task.seccomp.push_container(seccomp);
        }
        let bytes = |texts: &[String]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        let (name, file) = find_program(task, spec)?;
        Ok(Program { file, name, inaccessible: false, argv: bytes(&spec.args), envp: bytes(&spec.env) })
    }

    fn open_streams(&self, task: &Arc<Task>) -> Result<(), Failure> {
        let spec = &self.spec;
        let files = task.files();
        let process = task.process.pid;
        let failed = |errno| Failure { errno, message: format!("standard streams: {}", describe(errno)) };
        if spec.terminal {
            let terminal = crate::tty::console(task, spec.stdio, spec.rows, spec.columns).map_err(failed)?;
            for fd in 0..3 {
                files.replace(fd, terminal.clone(), false, u64::MAX).map(drop).map_err(failed)?;
            }
        } else {
            // Streams that are one object of the host stay one open file here.
            let mut opened: Vec<(u32, Arc<OpenFile>)> = Vec::new();
            for (fd, &handle) in (0..).zip(&spec.stdio) {
                let known = opened.iter().find(|(other, _)| *other == handle && handle != u32::MAX).map(|(_, file)| file.clone());
                let file = match known {
                    Some(file) => file,
                    None => fs::stdio(handle, process).map_err(failed)?,
                };
                opened.push((handle, file.clone()));
                files.replace(fd, file, false, u64::MAX).map(drop).map_err(failed)?;
            }
        }
        for (fd, &handle) in (3..).zip(&spec.extra_files) {
            let file = fs::stdio(handle, process).map_err(failed)?;
            files.replace(fd, file, false, u64::MAX).map(drop).map_err(failed)?;
        }
        Ok(())
    }
}

/// With the process's own permissions, as runc does it.
fn change_directory(task: &Arc<Task>, path: &[u8]) -> Result<(), Errno> {
    let context = task.fs();
    let location = fs::Walk::new(task).lookup(context.root(), path, true)?;
    if !fs::inode::is_directory(location.inode().as_ref()) {
        return Err(ENOTDIR);
    }
    fs::permission::check(&task.credentials(), location.inode().as_ref(), fs::permission::EXECUTE)?;
    context.set_cwd(location);
    Ok(())
}

/// A path, or a name to be looked for along the new environment's PATH.
fn find_program(task: &Arc<Task>, spec: &ProcessSpec) -> Result<(Vec<u8>, Arc<OpenFile>), Failure> {
    let name = spec.executable.as_ref().or(spec.args.first()).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Failure { errno: EINVAL, message: String::from("args must not be empty") })?;
    let open = |path: &str| fs::open_executable(task, task.fs().cwd(), path.as_bytes(), true);
    if name.contains('/') {
        return match open(name) {
            Ok(file) => Ok((name.as_bytes().to_vec(), file)),
            Err(errno) => Err(Failure { errno, message: explain(name, errno) }),
        };
    }
    let mut denied = false;
    for directory in search_path(spec).split(':') {
        let candidate = format!("{}/{name}", if directory.is_empty() { "." } else { directory });
        match open(&candidate) {
            Ok(file) => return Ok((candidate.into_bytes(), file)),
            Err(errno) => denied |= errno == EACCES,
        }
    }
    if denied {
        return Err(Failure { errno: EACCES, message: explain(name, EACCES) });
    }
    Err(Failure { errno: ENOENT, message: format!("exec: {name:?}: executable file not found in $PATH") })
}

/// PATH of the new environment.
pub fn search_path(spec: &ProcessSpec) -> &str {
    spec.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH)
}

fn explain(name: &str, errno: Errno) -> String {
    format!("exec: {name:?}: {}", describe(errno))
}

/// strerror(3) of what users meet here.
fn describe(errno: Errno) -> String {
    let known = match errno.name() {
        "ENOENT" => "no such file or directory",
        "EACCES" => "permission denied",
        "ENOEXEC" => "exec format error",
        "ENOTDIR" => "not a directory",
        "ELOOP" => "too many levels of symbolic links",
        "E2BIG" => "argument list too long",
        "ENOMEM" => "cannot allocate memory",
        "EIO" => "input/output error",
        "EISDIR" => "is a directory",
        "EMFILE" => "too many open files",
        "ENFILE" => "too many open files in system",
        "ETXTBSY" => "text file busy",
        "ELIBBAD" => "accessing a corrupted shared library",
        other => other,
    };
    String::from(known)
}
