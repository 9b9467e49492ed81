//! `exec --process`: the OCI process object that an engine makes from the container's own. One that differs from it in more than what to run
//! where and as whom is Python's (`runtime/plan/process.py`), and so is one that is not well-formed.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::{json, Map, Value};

use crate::container::State;

/// What may differ; the rest has to be as in config.json, of which the runtime has made a VMM's process already.
#[derive(Deserialize)]
struct Process {
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    cwd: String,
    #[serde(default)]
    user: User,
    #[serde(default)]
    terminal: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    uid: u32,
    gid: u32,
    umask: Option<u32>,
    additional_gids: Option<Vec<u32>>,
}

const DIFFERENT: [&str; 5] = ["args", "env", "cwd", "user", "terminal"];

/// As the VMM gets it, but for what the caller adds.
pub fn read(path: &Path, state: &State) -> Option<Map<String, Value>> {
    let document = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    translate(document, &state.process, &state.exec)
}

fn translate(document: Map<String, Value>, own: &Map<String, Value>, made: &Map<String, Value>) -> Option<Map<String, Value>> {
    let same = |key: &String| DIFFERENT.contains(&key.as_str()) || document.get(key) == own.get(key);
    if !document.keys().chain(own.keys()).all(same) {
        return None;
    }
    let mut process: Process = serde_json::from_value(Value::Object(document)).ok()?;
    let has_nul = process.args.iter().chain(&process.env).chain([&process.cwd]).any(|text| text.contains('\0'));
    if process.terminal || process.args.is_empty() || has_nul || !process.cwd.starts_with('/') {
        return None;
    }
    if home(&process.env).is_none() {
        process.env.push(home_of(process.user.uid, own, made)?);
    }
    let mut result = made.clone();
    for (key, value) in [
        ("args", json!(process.args)),
        ("env", json!(process.env)),
        ("cwd", json!(process.cwd)),
        ("uid", json!(process.user.uid)),
        ("gid", json!(process.user.gid)),
        ("umask", json!(process.user.umask)),
        ("additional_gids", json!(process.user.additional_gids.unwrap_or_default())),
    ] {
        result.insert(key.to_owned(), value);
    }
    Some(result)
}

fn home(env: &[String]) -> Option<&String> {
    env.iter().find(|variable| variable.starts_with("HOME="))
}

/// What the container's /etc/passwd says of its own user, as the runtime has read it; of another, Python reads it.
fn home_of(uid: u32, own: &Map<String, Value>, made: &Map<String, Value>) -> Option<String> {
    let given: Vec<String> = serde_json::from_value(own.get("env").cloned().unwrap_or(json!([]))).ok()?;
    let looked_up: Vec<String> = serde_json::from_value(made.get("env")?.clone()).ok()?;
    (made.get("uid")? == uid && home(&given).is_none()).then(|| home(&looked_up).cloned())?
}

/// Atomically: whoever waits for the file finds the number in it.
pub fn write_pid_file(path: &Path, pid: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    std::fs::write(&temporary, pid.to_string())?;
    std::fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn translated(document: Value) -> Option<Map<String, Value>> {
        let own = object(json!({"args": ["a"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": ["CAP_KILL"]}}));
        let made = object(json!({"args": ["a"], "env": ["HOME=/root"], "uid": 0, "gid": 0, "capabilities": {"bounding": 32}}));
        translate(object(document), &own, &made)
    }

    #[test]
    fn what_engines_change() {
        let capabilities = json!({"bounding": ["CAP_KILL"]});
        let user = json!({"uid": 0, "gid": 5, "additionalGids": [7]});
        let process = translated(json!({"args": ["sh"], "env": ["A=1"], "cwd": "/x", "user": user, "capabilities": capabilities})).unwrap();
        assert_eq!((&process["args"], &process["env"]), (&json!(["sh"]), &json!(["A=1", "HOME=/root"])));
        assert_eq!((&process["gid"], &process["additional_gids"]), (&json!(5), &json!([7])));
        assert_eq!(process["capabilities"], json!({"bounding": 32}));
    }

    #[test]
    fn the_rest_is_left_to_python() {
        let usual = json!({"args": ["sh"], "cwd": "/", "capabilities": {"bounding": ["CAP_KILL"]}});
        assert!(translated(usual.clone()).is_some());
        for (key, value) in [
            ("args", json!([])),
            ("args", json!(["a\0b"])),
            ("args", json!([1])),
            ("cwd", json!("x")),
            ("user", json!({"uid": 5, "gid": 5})), // whose home is it?
            ("user", json!({"uid": -1, "gid": 5})),
            ("terminal", json!(true)),
            ("capabilities", json!({"bounding": []})),
            ("noNewPrivileges", json!(true)),
        ] {
            let mut document = object(usual.clone());
            document.insert(key.to_owned(), value);
            assert!(translated(Value::Object(document)).is_none(), "{key}");
        }
    }
}
