//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use super::{full, partial, Call, Entry};
use crate::errno::ENOMEM;
use crate::mm::sysv;
use crate::SysResult;

pub const CALLS: &[Entry] = &[
    partial(29, "shmget", |call| Ok(sysv::get(call.task, call.int(0), call.args[1], call.uint(2))? as usize), "SHM_HUGETLB has no effect"),
    full(30, "shmat", shmat),
    full(31, "shmctl", |call| sysv::control(call.task, call.int(0), call.int(1), call.args[2])),
    full(67, "shmdt", shmdt),
];

fn shmat(call: &mut Call<'_>) -> SysResult {
    let space = call.task.memory().ok_or(ENOMEM)?;
    Ok(sysv::attach(call.task, &space, call.int(0), call.args[1], call.uint(2))? as usize)
}

fn shmdt(call: &mut Call<'_>) -> SysResult {
    let space = call.task.memory().ok_or(ENOMEM)?;
    sysv::detach(call.task, &space, call.args[0]).map(|()| 0)
}
