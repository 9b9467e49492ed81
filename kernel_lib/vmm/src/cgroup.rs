//! The one wait of a container's start that nothing shortens: whoever moves a process to another cgroup waits for an RCU grace period
//! (cgroup_threadgroup_rwsem), 10 ms, unless somebody has just done so.

use std::thread::JoinHandle;

/// Has that wait begin: by the time the runtime moves this process, it is over. Ends by itself.
pub fn begin_grace_period() -> JoinHandle<()> {
    std::thread::spawn(|| {
        // Moves this thread, by its number, to where it is.
        if let Some(file) = own_threads_file() {
            let _ = std::fs::write(file, crate::backends::signal::thread_id().to_string());
        }
    })
}

/// Of any hierarchy that is mounted: they share the lock.
fn own_threads_file() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    mounts.lines().find_map(|line| threads_file(line, &own))
}

/// In the hierarchy of a line of mountinfo, if it is one whose root is mounted.
fn threads_file(line: &str, own: &str) -> Option<String> {
    let (mount, system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut system = system.split(' ');
    let (controllers, name) = match system.next()? {
        "cgroup" => (system.nth(1)?, "tasks"),
        "cgroup2" => ("", "cgroup.threads"),
        _ => return None,
    };
    let path = own.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let same =
            if name == "tasks" { controllers.split(',').any(|option| !names.is_empty() && option == names) } else { names.is_empty() };
        same.then_some(path)
    })?;
    (root == "/").then(|| format!("{point}{}/{name}", path.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::threads_file;

    #[test]
    fn files_of_both_versions() {
        let own = "4:memory:/a\n9:name=systemd:/\n0::/b/c\n";
        let file = |line| threads_file(line, own);
        assert_eq!(file("40 30 0:30 / /cg/memory rw - cgroup cgroup rw,memory"), Some("/cg/memory/a/tasks".to_owned()));
        assert_eq!(file("40 30 0:30 / /cg/systemd rw - cgroup cgroup rw,name=systemd"), Some("/cg/systemd/tasks".to_owned()));
        assert_eq!(file("40 30 0:30 / /cg rw - cgroup2 cgroup2 rw"), Some("/cg/b/c/cgroup.threads".to_owned()));
        assert_eq!(file("40 30 0:30 /x /cg rw - cgroup2 cgroup2 rw"), None);
        assert_eq!(file("40 30 0:30 / /proc rw - proc proc rw"), None);
    }
}
