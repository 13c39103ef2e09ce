"""How a worker process begins: with its log, then with what may fail for lack of memory or descriptors.

Started by ``store.supervisor`` as ``python -P -m hemoscope.store.worker_process LOG_FORMAT``. Its standard output is
the log of its parent. Its standard error leads nowhere: what Python and native code print there, even before this
module is imported, may quote a file, and is no line of the log.
"""

import logging
import sys

from hemoscope.logs import configure_logs, own_stream


def main() -> None:
    """Take the log, then load all that reads studies, and work."""
    configure_logs(sys.argv[1], level=logging.WARNING, stream=own_stream(1))
    from hemoscope.store.worker import run  # hundreds of modules and libraries

    run()


if __name__ == "__main__":
    main()
