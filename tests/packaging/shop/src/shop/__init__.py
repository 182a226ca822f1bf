"""Sends a receipt."""

import smtplib
from email.message import EmailMessage


def send_receipt(host: str, port: int, customer: str, total: str) -> None:
    message = EmailMessage()
    message["From"], message["To"] = "shop@a.example", customer
    message["Subject"] = "Your receipt"
    message.set_content(f"You have paid {total}.\n")
    with smtplib.SMTP(host, port) as smtp:
        smtp.send_message(message)
