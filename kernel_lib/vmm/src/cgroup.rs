//! Whoever moves a process to another cgroup waits for an RCU grace period (cgroup_threadgroup_rwsem), 10 to 20 ms, unless somebody has just
//! done so. In v1 a process of one thread moves itself without (`session`); in v2 nobody does.

use std::thread::JoinHandle;

/// Where it will be waited for, has that begin: by the time the runtime moves this process, it is over. Ends by itself.
pub fn begin_grace_period() -> Option<JoinHandle<()>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let file = own_threads_file(&mounts, &own)?;
    // Moves the new thread, by its number, to where it is.
    Some(std::thread::spawn(|| drop(std::fs::write(file, crate::backends::signal::thread_id().to_string()))))
}

/// None: the containers' cgroups are those of v1, whatever else there is, or they are not to be seen from here.
fn own_threads_file(mounts: &str, own: &str) -> Option<String> {
    let mut unified = None;
    for line in mounts.lines() {
        let (mount, system) = line.split_once(" - ")?;
        match system.split(' ').next()? {
            "cgroup" => return None,
            "cgroup2" => unified = unified.or(Some(mount)),
            _ => {}
        }
    }
    let mut fields = unified?.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    (root == "/").then(|| format!("{point}{}/cgroup.threads", path.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::own_threads_file;

    #[test]
    fn only_where_all_is_unified() {
        let own = "4:memory:/a\n0::/b/c\n";
        let file = |mounts: &str| own_threads_file(mounts, own);
        let (proc, unified) = ("40 30 0:30 / /proc rw - proc proc rw", "41 30 0:31 / /cg rw shared:4 - cgroup2 cgroup2 rw");
        assert_eq!(file(&format!("{proc}\n{unified}\n")), Some("/cg/b/c/cgroup.threads".to_owned()));
        assert_eq!(file(&format!("{unified}\n42 30 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n")), None);
        assert_eq!(file("41 30 0:31 /x /cg rw - cgroup2 cgroup2 rw"), None);
        assert_eq!(file(proc), None);
    }
}
