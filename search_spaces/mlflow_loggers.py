"""What MLflow logs in this process. Standard library only."""

from __future__ import annotations

import logging

# Packages whose loggers MLflow gives handlers of its own, which know nothing of this project's redaction of secrets.
_LOGGERS = ("mlflow", "alembic", "sqlalchemy.engine")
# It logs each error of a database with its traceback, and then raises it. Where a disk is full, that is once a second.
_RAISES_AS_WELL = "mlflow.store.db.utils"


def set_up_mlflow_loggers() -> None:
    """Let MLflow log errors alone, through this process's own handlers, and none that it raises as well.

    Call it after MLflow was imported, because the import sets them up in its own way.
    """
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.ERROR)
    logging.getLogger(_RAISES_AS_WELL).setLevel(logging.CRITICAL)
