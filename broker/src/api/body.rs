//! Bytes from a caller: limited in time and length before anything looks at them, then strictly JSON.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::problem::{Code, FieldError, Problem};

/// Longest explanation of a JSON error that is sent back: such errors quote the input.
const EXPLANATION_MAX: usize = 200;

/// Reads a body that says it is JSON.
pub(super) async fn read(headers: &HeaderMap, body: Body, bytes_max: usize, limit: Duration) -> Result<Bytes, Problem> {
    if !is_json(headers) {
        let detail = "the Content-Type must be application/json, and be there once";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let too_long = || Problem::new(Code::BodyTooLarge, format!("a body has at most {bytes_max} bytes here"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|len| len > bytes_max as u64) {
        return Err(too_long());
    }
    match tokio::time::timeout(limit, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(Problem::new(Code::BadJson, "the body broke off")),
        Err(_) => Err(Problem::new(Code::BodyTimeout, format!("a body must arrive within {} ms", limit.as_millis()))),
    }
}

/// Parses it; what is wrong is told with a pointer.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        explain(error.inner(), pointer)
    })?;
    json.end().map_err(|error| explain(&error, "#".into()))?;
    Ok(parsed)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Ok(Some(value)) = super::only(headers, &header::CONTENT_TYPE) else { return false };
    let Ok(value) = value.to_str() else { return false };
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn explain(error: &serde_json::Error, pointer: String) -> Problem {
    let mut detail = error.to_string();
    if detail.len() > EXPLANATION_MAX {
        detail.truncate(detail.floor_char_boundary(EXPLANATION_MAX));
        detail.push('…');
    }
    let errors = vec![FieldError { pointer, detail: detail.clone() }];
    Problem { errors, ..Problem::new(Code::BadJson, detail) }
}

/// RFC 6901 §6.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::from("#");
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } if key.len() <= EXPLANATION_MAX => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Map { .. } | Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{SignBatchRequest, SignRequest};

    fn refusal<T: DeserializeOwned + std::fmt::Debug>(body: &str) -> Problem {
        parse::<T>(body.as_bytes()).expect_err("it is refused")
    }

    #[test]
    fn json_is_taken_strictly_and_errors_point_at_their_field() {
        for (body, expected) in [
            (r#"{"key":"k","algorithm":"a","digset":"AA=="}"#, "#/digset"),
            (r#"{"key":7,"algorithm":"a"}"#, "#/key"),
            (r#"{"key":"k","algorithm":"a","timeout_ms":-1}"#, "#/timeout_ms"),
            (r#"{"key":"k","algorithm":"a","class":"urgent"}"#, "#/class"),
            (r#"{"key":"k","algorithm":"a","capacity":{"type":"citizen","cvr":"12345678"}}"#, "#/capacity"),
            (r#"{"key":"k","algorithm":"a","key":"k"}"#, "#"),
            (r#"{"key":"k","algorithm":"a"} x"#, "#"),
            (r#"{"key":"k","algorithm":"a"#, "#/algorithm"),
            ("", "#"),
        ] {
            let problem = refusal::<SignRequest>(body);
            assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::BadJson, expected), "{body}");
        }
        let problem = refusal::<SignBatchRequest>(r#"{"key":"k","algorithm":"a","items":[{},{"digest":1}]}"#);
        assert_eq!(problem.errors[0].pointer, "#/items/1/digest");
    }

    #[test]
    fn an_error_does_not_echo_a_long_input() {
        let long = "æ".repeat(100_000);
        let problem = refusal::<SignRequest>(&format!(r#"{{"key":"k","algorithm":"a","class":"{long}"}}"#));
        assert!(serde_json::to_vec(&problem).unwrap().len() < 1_500);
        let problem = refusal::<SignRequest>(&format!(r#"{{"{long}":1}}"#));
        assert!(serde_json::to_vec(&problem).unwrap().len() < 1_500);
    }
}
