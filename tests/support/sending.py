"""What a client that sends mail makes of an error."""

import smtplib


def permanent(error: Exception) -> bool:
    """Whether sending again would end no better: a 5xx, or an extension that is not offered."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            return any(code >= 500 for code, _ in error.recipients.values())
        case smtplib.SMTPResponseException():
            return error.smtp_code >= 500
        case OSError():  # SMTPException is one, too
            return isinstance(error, smtplib.SMTPNotSupportedError)
    return True  # nothing that a network does
