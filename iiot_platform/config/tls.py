"""Encryption of a connection to a broker, as the plant file describes it."""

import ssl

from iiot_platform.config.plant import MqttTls


def client_context(tls: MqttTls) -> ssl.SSLContext:
    """What a client encrypts with.

    Raises:
        OSError: a file can not be read, or is no certificate or key.
    """
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
