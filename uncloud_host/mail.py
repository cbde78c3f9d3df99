"""The way out for mails: an SMTP server, or the local sendmail."""

import email.policy
import logging
import smtplib
import ssl
import subprocess
from contextlib import suppress
from email.message import EmailMessage

from uncloud_host.config import Mail
from uncloud_host.writing import UNFOLDED

logger = logging.getLogger(__name__)

SENDMAIL = "/usr/sbin/sendmail"
_FINAL = 500  # SMTP's codes from here on are refusals for good
HANGS = 50  # seconds for sendmail
ANSWER = 10.0  # seconds for each answer of the SMTP server


class MailError(Exception):
    """The mail could not be handed over; the message is one line."""


class Rejected(MailError):
    """The mail server will not take this mail, however often it is asked (SMTP 5xx, after it has seen the text)."""


def send(mail: EmailMessage, config: Mail) -> None:
    """Hand a mail over. Raises MailError if nobody has taken it."""
    try:
        if config.smtp is None:
            _sendmail(mail.as_bytes(policy=email.policy.default.clone(max_line_length=UNFOLDED)), config)
        else:
            _smtp(mail, config.smtp, config)
    except smtplib.SMTPDataError as error:
        kind = Rejected if error.smtp_code >= _FINAL else MailError
        raise kind(f"mail: {config.smtp}: {_line(error)}") from None
    except (OSError, ValueError, smtplib.SMTPException) as error:  # ValueError: that is no host's name
        # Also 5xx before the text: that is about us or about all our mails, and somebody will put it right.
        raise MailError(f"mail: {config.smtp or SENDMAIL}: {_line(error)}") from None


def _smtp(mail: EmailMessage, where: str, config: Mail) -> None:
    host, _, port = where.rpartition(":")
    name = host.strip("[]")
    context = None if config.tls == "no" else _context(config.ca)
    if config.tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(name, int(port), timeout=ANSWER, context=context)
    else:
        server = smtplib.SMTP(name, int(port), timeout=ANSWER)
    try:
        if config.tls == "starttls":
            server.starttls(context=context)
        if config.user:
            server.login(config.user, config.password or "")
        refused = server.send_message(mail, config.sender, list(config.to))
        for address, answer in refused.items():
            logger.warning("mail: %s does not take mail for %s: %s", where, address, _line(answer))
        with suppress(OSError, smtplib.SMTPException):  # it has the mail, whatever comes now
            server.quit()
    finally:
        server.close()


def _context(ca: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    # New in Python 3.13: refuses certificates of CAs made by hand that all other programs take.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _line(error: object) -> str:
    """Write a server's answer, or whatever was in the way, in one line."""
    match error:
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            text = "; ".join(f"{address}: {_line(answer)}" for address, answer in refused.items())
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=said):
            text = _line((code, said))
        case int(code), bytes(said):
            text = f"{code} {said.decode(errors='replace')}"
        case _:
            text = str(error)
    return " ".join(text.split())[:300]


def _sendmail(text: bytes, config: Mail) -> None:
    """Run sendmail in a unit of its own: it is setuid or setgid and writes to its spool, which our sandbox forbids.

    It may deliver in the background after it has said yes (exim, dma): only the process itself ends with the unit. One
    that hangs is ended, or each try would leave one more, and all of them deliver in the end.
    """
    unit = ["systemd-run", "--quiet", "--collect", "--pipe", "--wait", "--property=KillMode=process"]
    words = [*unit, f"--property=RuntimeMaxSec={HANGS}", SENDMAIL, "-oi", "-f", config.sender, "--", *config.to]
    try:
        done = subprocess.run(words, input=text, timeout=HANGS + 10, capture_output=True, check=False)  # noqa: S603 - our words
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MailError(f"mail: {SENDMAIL}: {error}") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
        raise MailError(f"mail: {SENDMAIL}: {said[:300]}")
