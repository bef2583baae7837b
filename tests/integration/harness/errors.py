"""Errors with their details: what a call that must be refused was refused with."""
import contextlib

import grpc

from .client import google_rpc


class Refusal:
    """A gRPC error, taken apart."""

    def __init__(self, error):
        self.code = error.code().name
        self.message = error.details()
        self.reason, self.domain, self.metadata, self.violations, self.retry_seconds = "", "", {}, {}, None
        trailers = {key: value for key, value in (error.trailing_metadata() or ())}
        packed = trailers.get("grpc-status-details-bin")
        self.status = None
        if packed is None:
            return
        self.status = google_rpc.Status.FromString(packed)
        assert self.status.code == error.code().value[0], "the status in the details has another code"
        assert self.status.message == self.message, "the status in the details has another message"
        for detail in self.status.details:
            kind = detail.type_url.rsplit(".", 1)[-1]
            if kind == "ErrorInfo":
                info = google_rpc.ErrorInfo.FromString(detail.value)
                self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
            elif kind == "BadRequest":
                bad = google_rpc.BadRequest.FromString(detail.value)
                self.violations = {item.field: item.description for item in bad.field_violations}
            elif kind == "RetryInfo":
                delay = google_rpc.RetryInfo.FromString(detail.value).retry_delay
                self.retry_seconds = delay.seconds + delay.nanos / 1e9

    def __repr__(self):
        return f"{self.code} {self.reason}: {self.message} {self.metadata} {self.violations}"


@contextlib.contextmanager
def refused(code, reason=None):
    """`with refused("NOT_FOUND") as refusal:` - the block's call must fail so; look at `refusal.error` afterwards."""

    class Holder:
        error = None

    holder = Holder()
    try:
        yield holder
    except grpc.RpcError as error:
        holder.error = Refusal(error)
        assert holder.error.code == code, holder.error
        if reason is not None:
            assert holder.error.reason == reason, holder.error
        assert holder.error.message, "an error without a message"
        return
    raise AssertionError(f"the call went well; {code} was expected")
