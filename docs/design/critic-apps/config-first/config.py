import os

APP_NAME = "Sales Dashboard"
APP_VERSION = "1.0.0"
DEBUG = True
DATABASE_URL = os.getenv("DATABASE_URL", "sqlite:///sales.db")
CACHE_TTL = 3600
MAX_ROWS = 10000
DEFAULT_REGION = "North"
THEME = {"primary": "#1f77b4", "background": "#ffffff"}
