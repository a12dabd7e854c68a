# One image for every room. The CPU build of torch is far smaller; to take it, build with
# --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
FROM python:3.12.11-slim

ARG PIP_EXTRA_INDEX_URL
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY process process
COPY consumer consumer
COPY trainer trainer
COPY serving serving
COPY streamgcn streamgcn
RUN pip install --no-cache-dir -c constraints.txt .

RUN useradd --uid 10001 --no-create-home streamgcn && install -d -o streamgcn /data
USER streamgcn
VOLUME /data
ENV EDGE_STORE=/data/edges MODEL_STORE=/data/models
CMD ["streamgcn", "--help"]
