//! Reads what a handler's signature shows.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::Sse;
use axum::response::{Html, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;

use super::super::extract::{
    AppPath, Asker, Command, LastPart, Lenient, MachinePath, Params, SlugPath, Strict, VolumePath,
    Writer,
};
use super::super::guard::Absent;
use super::super::options::{Options, WithFiles};
use super::super::session::Upgrade;
use super::super::uiex::UserAgent;
use super::{Must, Sketch, schema_of};
use crate::error::Problem;

/// A handler whose arguments and result are all known to the document.
pub(in super::super) trait Described<T> {
    /// Returns what it reads and answers.
    fn sketch() -> Sketch;
}

/// An argument of a handler.
trait Reads {
    fn note(_: &mut Sketch) {}
}

/// The result of a handler.
trait Answers {
    fn note(_: &mut Sketch) {}
}

macro_rules! described {
    ($($argument:ident),*) => {
        impl<F, Fut, R, $($argument),*> Described<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut,
            Fut: Future<Output = R>,
            R: Answers,
            $($argument: Reads,)*
        {
            fn sketch() -> Sketch {
                let mut sketch = Sketch::default();
                $(<$argument as Reads>::note(&mut sketch);)*
                R::note(&mut sketch);
                sketch
            }
        }
    };
}
described!();
described!(A);
described!(A, B);
described!(A, B, C);
described!(A, B, C, D);
described!(A, B, C, D, E);
described!(A, B, C, D, E, G);

// === impl Reads ===

macro_rules! shows_nothing {
    ($($argument:ty),*) => {$(impl Reads for $argument {})*};
}
shows_nothing!(
    AppPath,
    Asker,
    Body,
    HeaderMap,
    LastPart,
    MachinePath,
    Option<Extension<Absent>>,
    Params,
    SlugPath,
    UserAgent,
    VolumePath
);

impl<S> Reads for State<S> {}

impl Reads for Writer {
    fn note(sketch: &mut Sketch) {
        sketch.lease = true;
    }
}

impl Reads for Upgrade {
    fn note(sketch: &mut Sketch) {
        sketch.upgrade = true;
    }
}

impl Reads for Result<Upgrade, Problem> {
    fn note(sketch: &mut Sketch) {
        sketch.upgrade = true;
    }
}

impl<T: JsonSchema> Reads for Options<T> {
    fn note(sketch: &mut Sketch) {
        sketch.options = Some(schema_of::<T>);
    }
}

impl<T: JsonSchema> Reads for WithFiles<T> {
    fn note(sketch: &mut Sketch) {
        sketch.options = Some(schema_of::<T>);
    }
}

impl<T: JsonSchema> Reads for Lenient<T> {
    fn note(sketch: &mut Sketch) {
        sketch.body = Some((schema_of::<T>, Must::May));
    }
}

impl<T: JsonSchema> Reads for Command<T> {
    fn note(sketch: &mut Sketch) {
        sketch.body = Some((schema_of::<T>, Must::May));
    }
}

impl<T: JsonSchema> Reads for Strict<T> {
    fn note(sketch: &mut Sketch) {
        sketch.body = Some((schema_of::<T>, Must::Must));
    }
}

// === impl Answers ===

impl Answers for Problem {}
impl Answers for Response {}
impl Answers for StatusCode {}
impl<T> Answers for Html<T> {}

impl<T: JsonSchema> Answers for Json<T> {
    fn note(sketch: &mut Sketch) {
        sketch.answer = Some(schema_of::<T>);
    }
}

impl<R: Answers> Answers for (StatusCode, R) {
    fn note(sketch: &mut Sketch) {
        R::note(sketch);
    }
}

impl<R: Answers> Answers for (HeaderMap, R) {
    fn note(sketch: &mut Sketch) {
        R::note(sketch);
    }
}

impl<R: Answers> Answers for Result<R, Problem> {
    fn note(sketch: &mut Sketch) {
        R::note(sketch);
    }
}

impl<S> Answers for Sse<S> {
    fn note(sketch: &mut Sketch) {
        sketch.events = true;
    }
}
