"""Files of Google Drive, through gdown."""

from __future__ import annotations

import logging
from pathlib import Path

from s2v_cli.weights.fetch import FetchOptions, Progress, SourceFailed

_PAGES = 4  # that Drive may show before the file, each with a timeout of its own
_QUOTA = ("too many users", "many accesses", "quota")


def fetch_drive(
    file_id: str,
    target: Path,
    *,
    label: str,
    options: FetchOptions | None = None,
    progress: Progress | None = None,
) -> None:
    """Download a file of Google Drive to `target`; an earlier rest of it is taken up again.

    Raises:
        SourceFailed: it is private, gone, over its quota, or the connection fails.
    """
    import threading

    import gdown
    import requests
    from gdown.exceptions import DownloadCancelled

    options = options or FetchOptions()
    patience_s = _PAGES * options.timeout_s
    given_up = threading.Event()
    watch = threading.Timer(patience_s, given_up.set)  # gdown follows pages without end
    watch.daemon = True

    def report(done: int, total: int | None) -> None:
        watch.cancel()  # the file itself is coming
        if progress:
            progress(label, done, total)

    watch.start()
    try:
        gdown.download(
            id=file_id,
            output=str(target),
            quiet=True,
            use_cookies=False,  # it would write into the home folder
            resume=True,
            progress=report,
            timeout=options.timeout_s,
            retries=options.retries,
            cancel=given_up,
        )
    except DownloadCancelled:
        raise SourceFailed(
            f"Google Drive shows pages, but no file within {patience_s:g} s"
        ) from None
    except requests.exceptions.Timeout:
        raise SourceFailed(f"no answer within {options.timeout_s:g} s") from None
    except requests.exceptions.HTTPError as error:
        status = "?" if error.response is None else error.response.status_code
        raise SourceFailed(f"Google Drive refuses (HTTP {status})") from None
    except requests.exceptions.RequestException as error:
        raise SourceFailed(f"no connection, or it broke: {error}") from None
    except OSError:
        raise  # the disk's own
    except Exception as error:  # gdown raises plain ones for pages that it does not expect
        logging.getLogger(__name__).debug("gdown: %s", error)
        text = str(error).lower()
        if any(word in text for word in _QUOTA):
            raise SourceFailed(
                "Google Drive gives no link: the file's download quota for today is used up, or "
                "it is not public any more"
            ) from None
        raise SourceFailed(f"Google Drive gives no file: {error or type(error).__name__}") from None
    finally:
        watch.cancel()
