//! Requests of control clients, as values. Pure: bytes in, a request or an error out. Unknown fields are errors.

use abi::config::{Limits, ProcessSpec};
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::{Map, Value};

pub const VERSION: u64 = 1;

#[derive(Debug)]
pub struct Message {
    /// Chosen by the client, echoed as it is.
    pub id: Value,
    pub request: Result<Request, String>,
}

#[derive(Debug)]
pub enum Request {
    Start,
    Exec(Box<ProcessSpec>),
    Kill(Kill),
    Resize(Resize),
    CloseStdin(Option<Value>),
    Ps,
    Pause,
    Resume,
    Stats,
    Update(Limits),
    State,
    Wait,
    Events,
    Trace(bool),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kill {
    pub signal: u32,
    pub pid: u32,
    pub all: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    #[serde(default)]
    pub exec: Option<Value>,
    pub rows: u16,
    pub columns: u16,
}

/// Not a request at all: the client gets one error and loses its connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage(pub String);

/// What a message says about itself before it is looked into: its content lies in an attached memfd.
pub fn is_in_memfd(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope {
        v: u64,
        memfd: bool,
    }
    text.len() < 64 && serde_json::from_slice::<Envelope>(text).is_ok_and(|envelope| envelope.v == VERSION && envelope.memfd)
}

/// `handles`: what the attached descriptors would be called in the guest, in order.
pub fn parse(text: &[u8], handles: &[u32]) -> Result<Message, Garbage> {
    let mut fields: Map<String, Value> = serde_json::from_slice(text).map_err(|error| Garbage(format!("not a JSON object: {error}")))?;
    if fields.remove("v").and_then(|version| version.as_u64()) != Some(VERSION) {
        return Err(Garbage(format!("not version {VERSION} of the control protocol")));
    }
    let id = fields.remove("id").ok_or_else(|| Garbage("no id".to_owned()))?;
    let Some(Value::String(op)) = fields.remove("op") else { return Err(Garbage("no op".to_owned())) };
    Ok(Message { id, request: request(&op, fields, handles).map_err(|reason| format!("{op}: {reason}")) })
}

fn request(op: &str, mut fields: Map<String, Value>, handles: &[u32]) -> Result<Request, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Update {
        limits: Limits,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Exec {
        process: ProcessSpec,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Which {
        #[serde(default)]
        exec: Option<Value>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Trace {
        on: bool,
    }
    let plain = |request| move |Nothing {}| request;
    match op {
        "start" => typed(fields).map(plain(Request::Start)),
        "ps" => typed(fields).map(plain(Request::Ps)),
        "pause" => typed(fields).map(plain(Request::Pause)),
        "resume" => typed(fields).map(plain(Request::Resume)),
        "stats" => typed(fields).map(plain(Request::Stats)),
        "state" => typed(fields).map(plain(Request::State)),
        "wait" => typed(fields).map(plain(Request::Wait)),
        "events" => typed(fields).map(plain(Request::Events)),
        "kill" => typed(fields).map(Request::Kill),
        "resize" => typed(fields).map(Request::Resize),
        "close_stdin" => typed(fields).map(|Which { exec }| Request::CloseStdin(exec)),
        "update" => typed(fields).map(|Update { limits }| Request::Update(limits)),
        "trace" => typed(fields).map(|Trace { on }| Request::Trace(on)),
        "exec" => {
            if let Some(Value::Object(process)) = fields.get_mut("process") {
                name_handles(process, handles)?;
            }
            typed(fields).map(|Exec { process }| Request::Exec(Box::new(process)))
        }
        _ => Err("unknown op".to_owned()),
    }
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}

/// Replaces indexes of attached descriptors by the guest's handles of them; -1 is no descriptor.
fn name_handles(process: &mut Map<String, Value>, handles: &[u32]) -> Result<(), String> {
    if !process.contains_key("stdio") {
        process.insert("stdio".to_owned(), Value::from(vec![-1, -1, -1]));
    }
    for key in ["stdio", "extra_files"] {
        let Some(list) = process.get_mut(key).and_then(Value::as_array_mut) else { continue };
        for entry in list {
            let handle = match entry.as_i64() {
                Some(-1) => u32::MAX,
                Some(index) => {
                    let handle = usize::try_from(index).ok().and_then(|index| handles.get(index));
                    *handle.ok_or_else(|| format!("{key} names descriptor {index}, and {} are attached", handles.len()))?
                }
                None => return Err(format!("{key} has an entry that is not a number")),
            };
            *entry = Value::from(handle);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_typed_and_strict() {
        let parse = |text: &str| parse(text.as_bytes(), &[5000, 5001]);
        assert!(parse("hello").is_err());
        assert!(parse(r#"{"id":1,"op":"ps"}"#).is_err());
        assert!(parse(r#"{"v":2,"id":1,"op":"ps"}"#).is_err());
        assert!(parse(r#"{"v":1,"id":1,"op":"ps","more":1}"#).unwrap().request.is_err());
        assert!(parse(r#"{"v":1,"id":1,"op":"dance"}"#).unwrap().request.is_err());
        assert!(matches!(
            parse(r#"{"v":1,"id":"x","op":"kill","signal":15}"#).unwrap().request,
            Ok(Request::Kill(Kill { signal: 15, pid: 0, all: false }))
        ));
        assert!(matches!(parse(r#"{"v":1,"id":1,"op":"close_stdin"}"#).unwrap().request, Ok(Request::CloseStdin(None))));
    }

    #[test]
    fn descriptors_become_handles() {
        let exec = |process: &str| {
            parse(format!(r#"{{"v":1,"id":1,"op":"exec","process":{process}}}"#).as_bytes(), &[5000, 5001]).unwrap().request
        };
        let Ok(Request::Exec(process)) = exec(r#"{"args":["sh"],"stdio":[0,-1,1],"extra_files":[1]}"#) else { panic!() };
        assert_eq!((process.stdio, process.extra_files), ([5000, u32::MAX, 5001], vec![5001]));
        let Ok(Request::Exec(process)) = exec("{}") else { panic!() };
        assert_eq!(process.stdio, [u32::MAX; 3]);
        assert!(exec(r#"{"stdio":[0,1,2]}"#).is_err());
        assert!(exec(r#"{"stdio":["a",1,2]}"#).is_err());
        assert!(exec(r#"{"stdio":[-2,1,2]}"#).is_err());
    }

    #[test]
    fn envelopes() {
        assert!(is_in_memfd(br#"{"v":1,"memfd":true}"#));
        assert!(!is_in_memfd(br#"{"v":1,"id":2,"op":"ps"}"#));
    }
}
