"""Questions to a model, each about one image. Answers are JSON, validated before a stage sees them.

prompt        questions and answers
answer_model  pydantic models that define the schema of an answer
reading       finds the JSON object in the text of an answer
models        what is known about each model: image tokens, effort, shutdown date
model_choice  which model a run uses
prices        the cost of an answer, from the price list of genai-prices
images        images scaled down to the size that the model sees
rate_limit    requests and tokens per minute, from the server's headers
congestion    sends fewer requests at once when answers are late
options       the flags of a stage that asks a model
budget        --max-cost: what may still be spent, and the maximum cost of a request
flex          --flex: half the price, when the server has capacity
estimate      --estimate: the expected cost of a run
request       the body of a request, for the Responses and the Chat Completions API
wire          one form for the answers of both APIs
server        the server's address and key, and the openai package
client        one call to a server
failures      classifies failed calls
store         stores every paid answer on disk
map_rows      `ask_rows`: asks about a stage's rows in parallel, within a budget
batch_api     the same through the Batch API, at half the price, in steps
batch_records the state of each batch
batch_wait    --batch wait: runs all of these steps until nothing is pending
recaps        the two files of the second captioning pass
"""
