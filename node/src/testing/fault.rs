//! What a request asks of S3, and what may go wrong with it. Pure.

use std::time::Duration;

use http::{Method, Uri};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Put,
    Get,
    Head,
    List,
    Delete,
    CreateMultipart,
    PutPart,
    CompleteMultipart,
    AbortMultipart,
}

impl Operation {
    pub(super) fn of(method: &Method, uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let of_upload = query.contains("uploadId=");
        match *method {
            Method::HEAD => Self::Head,
            Method::GET if query.contains("list-type=") => Self::List,
            Method::GET => Self::Get,
            Method::PUT if of_upload => Self::PutPart,
            Method::PUT => Self::Put,
            Method::POST if of_upload => Self::CompleteMultipart,
            Method::POST if query.contains("uploads") => Self::CreateMultipart,
            Method::DELETE if of_upload => Self::AbortMultipart,
            _ => Self::Delete,
        }
    }
}

/// A request, as a plan of faults sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub operation: Operation,
    /// The object; empty for a listing and for a deletion, which names its objects in its body.
    pub path: String,
    /// How many requests of exactly this kind there have been, this one included: counts from 1.
    pub attempt: usize,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the answer is this HTTP status.
    Status(u16),
    /// The answer comes after this time, and its body in ten pieces with this time between them.
    Slow(Duration),
    /// The connection breaks: in the middle of an object that is read, else before the request has arrived.
    Reset,
    /// The request is carried out, and no answer ever comes.
    NoAnswer,
    /// A listing shows what it showed when it was last asked for without this fault.
    StaleList,
    /// One bit of an object is flipped on its way.
    FlippedBit,
}
