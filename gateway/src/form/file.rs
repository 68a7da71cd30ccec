//! A form off a connection: its fields, then its file as a body like any other.

use super::disposition::Boundary;
use super::fields::FormFields;
use super::parser::{FormError, FormEvent, FormParser};
use super::policy::LengthRange;
use crate::error::{S3Code, S3Error};
use crate::limits::FORM_FIELDS_TIME_MAX;
use crate::payload::Payload;
use bytes::Bytes;
use futures_util::Stream as _;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A form whose fields have been read and whose file has not.
#[derive(Debug)]
pub struct FormUpload {
    payload: Payload,
    parser: FormParser,
    /// Input that the parser has not taken yet.
    input: Bytes,
}

impl FormUpload {
    /// Reads the fields up to where the file begins: at most 20 KiB of them, for at most a minute.
    ///
    /// # Errors
    /// Whatever is wrong with the form or the body; RequestTimeout.
    pub async fn begin(payload: Payload, boundary: &Boundary) -> Result<(FormFields, Self), S3Error> {
        let mut upload = Self { payload, parser: FormParser::new(boundary), input: Bytes::new() };
        let fields = tokio::time::timeout(FORM_FIELDS_TIME_MAX, upload.fields())
            .await
            .unwrap_or_else(|_| Err(S3Error::new(S3Code::RequestTimeout).closing_connection()))?;
        Ok((fields, upload))
    }

    async fn fields(&mut self) -> Result<FormFields, S3Error> {
        loop {
            match self.parser.next(&mut self.input)? {
                FormEvent::Fields(fields) => return Ok(fields),
                // No file comes before the fields are told.
                FormEvent::File(_) | FormEvent::NeedInput => {}
            }
            match self.payload.next().await {
                Some(bytes) => self.input = bytes?,
                None => {
                    self.parser.finish()?;
                    return Err(FormError::NotOneFile { count: 0 }.into());
                }
            }
        }
    }

    /// The file, of which each byte is handed on as it comes. It ends normally only after the form's closing boundary and
    /// the end of the request's body, and if it has as many bytes as `range` allows.
    pub fn into_file(self, range: LengthRange) -> impl Body<Data = Bytes, Error = S3Error> + Send + 'static {
        FormFile { upload: self, range, len_bytes: 0 }
    }
}

struct FormFile {
    upload: FormUpload,
    range: LengthRange,
    len_bytes: u64,
}

impl FormFile {
    fn count(&mut self, data: Bytes) -> Result<Frame<Bytes>, S3Error> {
        self.len_bytes += data.len() as u64;
        if self.len_bytes > self.range.max {
            return Err(S3Error::new(S3Code::EntityTooLarge)
                .with_extra("ProposedSize", self.len_bytes.to_string())
                .with_extra("MaxSizeAllowed", self.range.max.to_string()));
        }
        Ok(Frame::data(data))
    }

    fn end(&self) -> Result<(), S3Error> {
        self.upload.parser.finish()?;
        if self.len_bytes < self.range.min {
            return Err(S3Error::new(S3Code::EntityTooSmall)
                .with_extra("ProposedSize", self.len_bytes.to_string())
                .with_extra("MinSizeAllowed", self.range.min.to_string()));
        }
        Ok(())
    }
}

impl Body for FormFile {
    type Data = Bytes;
    type Error = S3Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            let upload = &mut this.upload;
            match upload.parser.next(&mut upload.input) {
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
                Ok(FormEvent::File(data)) => return Poll::Ready(Some(this.count(data))),
                // The fields have been told.
                Ok(FormEvent::Fields(_) | FormEvent::NeedInput) => {}
            }
            match ready!(Pin::new(&mut upload.payload).poll_next(cx)) {
                Some(Ok(bytes)) => upload.input = bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(this.end().err().map(Err)),
            }
        }
    }
}
