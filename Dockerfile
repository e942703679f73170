# Two stages: the first installs the locked packages, the second holds only what runs, as a user without rights.
# The embedded servers are not in the image: production sets MONGODB_URI and S3_ENDPOINT_URL (see compose.yaml).
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /opt/venv
COPY requirements/service.lock requirements/service.lock
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/service.lock

FROM python:3.11-slim-bookworm
# ffmpeg: the worker makes posters, small and sound-only renditions of films
RUN apt-get update -q && apt-get install -y -q --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /app xinqiao && mkdir -p /app/var && chown xinqiao /app/var
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY api api
COPY content content
COPY notifications notifications
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER xinqiao
VOLUME /app/var
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["granian", "--interface", "wsgi", "--factory", "api:create_wsgi", "--host", "0.0.0.0", "--port", "8000", \
     "--workers", "2", "--blocking-threads", "6", "--respawn-failed-workers", "--no-access-log"]
